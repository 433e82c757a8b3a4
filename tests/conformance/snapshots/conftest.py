"""Every test here runs once per snapshot mode that there is, on a file system that can do it."""

import functools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support import rsync_programs
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine
from tests.support.loop_volume import can_have_one, loop_volume

from turku.core.configuration.declaration import with_values
from turku.storage.fs.remove import remove_tree
from turku.storage.snapshots import MODES, SnapshotMode

FILE_SYSTEMS = {"btrfs": "btrfs", "reflink": "xfs"}
"""The file systems that modes need. The others take any."""
PLAIN = "ext4"
"""The file system for the others. One of our own, where we can have one, has nobody else's files to flush."""


WITH_ANY_RSYNC = ("test_killed_runs.py", "test_bit_rot.py", "test_many_names.py", "test_choice.py")
"""Tests of what we do with trees of our own, whichever rsync filled them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder in which rsync's own work shows."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.path.name not in WITH_ANY_RSYNC:
            item.add_marker(pytest.mark.storage_rsync)


@pytest.fixture(params=sorted(MODES))
def mode(request: pytest.FixtureRequest) -> type[SnapshotMode]:
    return MODES[request.param]


@pytest.fixture
def possible_modes(mode: type[SnapshotMode]) -> list[str]:
    """The modes that the file system of ``mode`` can do."""
    needed = {"btrfs": {"btrfs"}, "reflink": {"btrfs", "xfs"}}
    kind = FILE_SYSTEMS.get(mode.name, PLAIN)
    return [name for name in sorted(MODES) if kind in needed.get(name, {kind})]


@pytest.fixture(scope="session")
def loop_volumes() -> Iterator[Callable[[str], Path]]:
    """One file system of each kind for all tests, mounted when it is first asked for."""
    with ExitStack() as stack:
        yield functools.cache(lambda kind: stack.enter_context(loop_volume(kind)))


@pytest.fixture
def volume(mode: type[SnapshotMode], tmp_path: Path, loop_volumes: Callable[[str], Path]) -> Iterator[Path]:
    """A volume of the test's own, on a file system for the mode."""
    kind = FILE_SYSTEMS.get(mode.name, PLAIN)
    if kind == PLAIN and not can_have_one(kind):
        yield tmp_path / "volume"
        return
    directory = Path(tempfile.mkdtemp(dir=loop_volumes(kind)))
    yield directory
    remove_tree(directory)


@pytest.fixture
def machine(mode: type[SnapshotMode], tmp_path: Path, volume: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path, volume=volume, snapshot_mode=mode.name) as machine:
        yield machine


@pytest.fixture
def spied(machine: BackedUpMachine, tmp_path: Path) -> Path:
    """A file that holds a line with the arguments of each rsync that the storage ran."""
    log = tmp_path / "spied"
    script = f'echo "$@" >> {log}; exec "$0" "$@"'
    machine.storage = with_values(
        machine.storage, rsync_command=("sh", "-c", script, rsync_programs.chosen.storage), sandbox="off"
    )
    return log
