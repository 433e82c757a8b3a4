"""``turku-storage gc``: what left history goes from the disk, in its own time, and nothing waits for it."""

import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine

from turku.core import command, lock
from turku.core.clock import SYSTEM_CLOCK
from turku.core.configuration.declaration import with_values
from turku.storage.backup import run as backup_run
from turku.storage.disk import deletion, trash
from turku.storage.fs.remove import remove_tree

PROGRAM = Path(sys.executable).with_name("turku-storage")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path, volume=tmp_path / "storage" / "volume") as machine:
        machine.clock.moment = SYSTEM_CLOCK.now() - timedelta(days=100)
        yield machine


def gc(machine: BackedUpMachine, *options: str) -> str:
    completed = command.run([PROGRAM, "gc", "--config-dir", machine.storage.config_dir, *options], timeout_seconds=60)
    return completed.stdout.decode()


def leave_deletions(machine: BackedUpMachine, trees: int, *, files: int = 3) -> None:
    for number in range(trees):
        directory = machine.place.snapshots_dir / f".deleting-{number}" / "inner"
        directory.mkdir(parents=True)
        for name in range(files):
            (directory / str(name)).touch()


def test_files_half_written_by_a_killed_run_go_an_hour_later(machine: BackedUpMachine) -> None:
    machine.days(1)
    volume, catalogs = machine.machine_dir.parent, machine.machine_dir.parent / ".catalogs" / machine.machine_dir.name
    left = [
        directory / f".{name}.turku-tmp-0123456789ab"
        for directory, name in (
            (volume, ".turku-volume"),
            (machine.machine_dir, ".etc.writing"),
            (catalogs, "etc.json"),
        )
    ]
    for path in left:
        path.write_text("half")
    gc(machine)
    assert all(path.exists() for path in left)
    for path in left:
        os.utime(path, (1, 1))
    gc(machine)
    assert not any(path.exists() for path in left)


def test_trees_that_left_history_are_removed_and_history_is_not(machine: BackedUpMachine) -> None:
    kept = machine.days(3)
    leave_deletions(machine, 2)
    assert gc(machine) == "2 trees removed\n"
    assert deletion.marked(machine.place) == []
    assert machine.snapshots() == kept
    assert gc(machine) == "nothing to remove\n"
    assert gc(machine, "--background") == ""
    trash.put(machine.place, kept[0], now=SYSTEM_CLOCK.now() + timedelta(days=1))
    assert gc(machine) == "nothing to remove; the trash holds 1 snapshot ('turku-storage trash list')\n"


def test_a_backup_does_not_wait_for_the_removal_of_expired_snapshots(
    machine: BackedUpMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_run, "COLLECT_SECONDS", 0)
    machine.days(2)
    gone = machine.snapshots()[:2]
    leave_deletions(machine, 5)
    # A source that changed before is expected to have changed again: what is copied for that is no garbage then.
    (machine.source_dir / "diary").write_text("another day")
    kept = machine.back_up(retention="last 1 snapshots").snapshot
    assert machine.snapshots() == [kept]
    assert len(deletion.marked(machine.place)) == 5 + len(gone)
    assert gc(machine, "--background") == "7 trees removed\n"
    assert deletion.marked(machine.place) == []


def test_a_backup_that_must_wait_for_room_makes_room_where_it_can(machine: BackedUpMachine) -> None:
    machine.days(1)
    leave_deletions(machine, 1)
    machine.storage = with_values(machine.storage, low_water_free_pct=100.0)
    assert "low-water mark" in machine.back_up().summary
    assert deletion.marked(machine.place) == []


def test_the_removal_goes_on_while_the_source_is_backed_up(machine: BackedUpMachine) -> None:
    machine.days(1)
    leave_deletions(machine, 1)
    with lock.exclusive(machine.machine_dir, ".etc"):
        assert gc(machine, "--background") == "1 tree removed\n"


def test_the_trash_of_a_source_that_is_no_longer_backed_up_is_emptied_in_its_time(machine: BackedUpMachine) -> None:
    old, kept = machine.days(2)
    # The configuration of the program: what is in the trash is kept for 0 days.
    trash.put(machine.place, old, now=machine.clock.now())
    with lock.exclusive(machine.machine_dir, ".etc"):
        gc(machine)
    assert [each.name for each in trash.trashed_snapshots(machine.place)] == [old]
    assert gc(machine) == "1 tree removed\n"
    assert trash.trashed_snapshots(machine.place) == ()
    assert machine.snapshots() == [kept]


def test_only_one_run_removes_at_a_time(machine: BackedUpMachine) -> None:
    machine.days(1)
    leave_deletions(machine, 1)
    with lock.exclusive(machine.storage.state.lock_dir, "gc"):
        assert gc(machine, "--background") == ""
    with lock.exclusive_directory(machine.place.snapshots_dir):
        assert deletion.collect(machine.place) == 0
    assert deletion.collect(machine.place) == 1


def test_a_removal_stops_when_it_is_told_to_and_goes_on_later(machine: BackedUpMachine) -> None:
    machine.days(1)
    leave_deletions(machine, 2, files=250)
    [first, _] = deletion.marked(machine.place)
    answers = iter([True, False])
    assert deletion.collect(machine.place, lambda: next(answers, False)) == 0
    assert 0 < len(os.listdir(first / "inner")) < 250
    assert deletion.collect(machine.place) == 2
    assert remove_tree(first)
