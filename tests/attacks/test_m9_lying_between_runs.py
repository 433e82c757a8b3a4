"""M9, M4: a machine that says one thing in the dry run and does another in the transfer.

The tree of the new snapshot has hard links to files of all snapshots before it. None of these ever changes.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import rsync_programs
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine, fingerprint

from turku.core.configuration.declaration import with_values

pytestmark = pytest.mark.storage_rsync

FILES = 200
needs_sandbox = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    """With two snapshots that share all files but one, and one more change to come."""
    with backed_up_machine(tmp_path) as machine:
        for number in range(FILES):
            (machine.source_dir / str(number % 10)).mkdir(exist_ok=True)
            (machine.source_dir / str(number % 10) / str(number)).write_text("good")
        for content in ("one", "two", "three"):
            (machine.source_dir / "changing").write_text(content)
            if content != "three":
                assert machine.back_up().success
        yield machine


def kept(machine: BackedUpMachine) -> dict[str, object]:
    return {name: fingerprint(machine.place.tree(name)) for name in machine.snapshots()}


LIES = {
    "it sends all files, with another content, mode and owner": (
        "for f in {source}/*/*; do echo evil > $f; done; chmod -R 777 {source}; chown -R 5:5 {source}; "
        '{rsync} -a --inplace --out-format=":%i|%C|%n" {source}/ ./'
    ),
    "it sends links where directories were": (
        "rm -rf {source}/[0-9]; for n in 0 1 2 3 4 5 6 7 8 9; do ln -s {snapshots}/$n {source}/$n; done; "
        '{rsync} -a --out-format=":%i|%C|%n" {source}/ ./'
    ),
    "it sends files where directories were": (
        "rm -rf {source}/[0-9]; for n in 0 1 2 3 4 5 6 7 8 9; do echo evil > {source}/$n; done; "
        '{rsync} -a --out-format=":%i|%C|%n" {source}/ ./'
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_was_not_asked_for_changes_no_snapshot(machine: BackedUpMachine, lie: str) -> None:
    before = kept(machine)
    # The receiver does all that the sender wants: whatever it checks of its own accord, nobody relies on it.
    newest = machine.place.snapshot(machine.snapshots()[-1])
    doing = LIES[lie].format(source=machine.source_dir, snapshots=newest, rsync='"$0"')
    asked = machine.source_dir.parent / "asked"
    script = f'case "$*" in *--files-from*) touch {asked}; {doing};; *) exec "$0" "$@";; esac'
    outcome = machine.with_rsync("sh", "-c", script, "rsync").back_up()
    assert asked.exists()
    assert outcome.success, outcome.summary
    assert {name: seen for name, seen in kept(machine).items() if name in before} == before


@pytest.mark.parametrize(
    "path",
    ["../../evil", "/etc/evil", "3/../../../evil", "etc.snapshots/x", "..", "3/./3", "3//3", "\\#056\\#056/evil"],
)
@pytest.mark.parametrize("begins", [":>f+++++++++||", ":*deleting  ||"])
def test_forged_lines_name_nothing_outside(machine: BackedUpMachine, path: str, begins: str) -> None:
    before = kept(machine)
    beside = sorted(os.listdir(machine.machine_dir.parent))
    script = f'case "$*" in *--dry-run*) printf \'%s\\n\' \'{begins}{path}\';; esac; exec "$0" "$@"'
    outcome = machine.with_rsync("sh", "-c", script, "rsync").back_up()
    assert outcome.success, outcome.summary
    assert {name: seen for name, seen in kept(machine).items() if name in before} == before
    assert sorted(os.listdir(machine.machine_dir.parent)) == beside
    assert machine.differences(machine.newest_tree(), "--no-H") == []


@needs_sandbox
@pytest.mark.parametrize("run", ["--dry-run", "--files-from"])
def test_a_receiver_that_was_taken_over_does_not_reach_history_then(machine: BackedUpMachine, run: str) -> None:
    before = kept(machine)
    evil = 'for each in /beside* /tree; do echo evil > "$each/changing"; chmod 777 "$each"; rm -rf "$each"/*; done'
    script = f'case "$*" in *{run}*) touch asked; {evil};; esac; exec "$0" "$@"'
    machine.storage = with_values(
        machine.storage, sandbox="required", rsync_command=("sh", "-c", script, rsync_programs.chosen.storage)
    )
    outcome = machine.back_up()
    assert outcome.success, outcome.summary
    assert {name: seen for name, seen in kept(machine).items() if name in before} == before
    assert len(machine.snapshots()) == 3
    # What nobody planned is not taken, though it lay in the staging directory.
    assert not (machine.newest_tree() / "asked").exists()
    assert machine.differences(machine.newest_tree(), "--no-H") == []


def test_a_receiver_that_says_nothing_is_not_taken_to_have_found_nothing(machine: BackedUpMachine) -> None:
    silent = 'case "$*" in *--dry-run*) exit 0;; esac; exec "$0" "$@"'
    assert machine.with_rsync("sh", "-c", silent, "rsync").back_up().success
    assert machine.differences(machine.newest_tree(), "--no-H") == []
