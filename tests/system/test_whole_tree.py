"""A real tree of tens of thousands of files: /usr/share of this machine, there and back again."""

import shutil
from pathlib import Path

import pytest
from tests.support.fleet import Fleet
from tests.support.restore_mode import restore_mode
from tests.support.trees import differences, snapshot_differences
from tests.system.conftest import MakeMachine

from turku.core import command

_WHOLE = Path("/usr/share")
_PARTS = ("doc", "man", "zoneinfo", "perl", "perl5", "terminfo", "locale", "python3")
_LIMIT_MIB = 1024


def _tree() -> tuple[Path, list[str]]:
    """The tree, and the top directories to leave out so that a large system does not make this test a long one."""
    size_mib = int(command.run(["du", "-sm", _WHOLE], timeout_seconds=120, check=False).stdout.split()[0])
    if size_mib <= _LIMIT_MIB:
        return _WHOLE, []
    return _WHOLE, [f"/{entry.name}" for entry in _WHOLE.iterdir() if entry.name not in _PARTS]


@pytest.mark.timeout(600)
def test_usr_share_is_identical_in_the_backup_and_after_its_restore(fleet: Fleet, make_machine: MakeMachine) -> None:
    tree, excluded_paths = _tree()
    machine = make_machine({"share": {"path": str(tree), "exclude": excluded_paths, "preserve_hard_links": True}})
    excludes = [f"--exclude={pattern}" for pattern in excluded_paths]

    machine.ping()
    [snapshot] = fleet.snapshots(machine, "share")
    assert snapshot_differences(tree, snapshot, *excludes) == []

    with restore_mode(machine) as mode:
        mode.send(snapshot, "-H")
    assert differences(tree, machine.restore_path, *excludes) == []
    # pytest keeps the directories of its last runs. A gigabyte each is too much.
    shutil.rmtree(machine.restore_path)
    shutil.rmtree(fleet.storage_of(machine).volume / machine.uuid)
