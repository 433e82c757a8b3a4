"""A volume that runs out of inodes, a real ext4 with few of them: the next run recovers by itself."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine
from tests.support.loop_volume import loop_volume

from turku.storage.snapshots.mode import LinkDest

INODES = 1000
FILES = 250
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system of its own")


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv("LOOP_VOLUME_ext4", raising=False)
    with loop_volume("ext4", size_bytes=64 * 1024**2, inodes=INODES) as volume:
        volume.chmod(0o700)
        yield volume


@pytest.fixture(params=[0, 3], ids=["no low-water mark", "low-water mark"])
def machine(tmp_path: Path, volume: Path, request: pytest.FixtureRequest) -> Iterator[BackedUpMachine]:
    keys: dict[str, Any] = {"volumes": {"data": {"path": str(volume)}}, "low_water_free_pct": request.param}
    with backed_up_machine(tmp_path, volume=volume, **keys) as machine:
        for number in range(FILES):
            directory = machine.source_dir / f"{number // 5}"
            directory.mkdir(exist_ok=True)
            (directory / str(number)).write_text(f"{number}")
        outcome = machine.back_up()
        assert outcome.success, outcome.summary
        yield machine


def flood(machine: BackedUpMachine) -> list[Path]:
    """More new files than the volume has inodes."""
    files = [machine.source_dir / f"new {number}" for number in range(2 * INODES)]
    for path in files:
        path.write_text("new")
    return files


def free_inodes(machine: BackedUpMachine) -> int:
    return os.statvfs(machine.machine_dir).f_favail


def recovers(machine: BackedUpMachine, before: list[str]) -> None:
    """The next run is a good one, and what was there is as it was."""
    outcome = machine.back_up()
    assert outcome.success, outcome.summary
    assert machine.snapshots()[:-1] == before
    assert machine.differences(machine.newest_tree()) == []
    assert free_inodes(machine) > INODES // 3


def test_the_run_after_one_that_took_all_inodes_is_a_good_one(machine: BackedUpMachine) -> None:
    before = machine.snapshots()
    files = flood(machine)
    assert not machine.back_up().success
    assert machine.snapshots() == before
    for path in files:
        path.unlink()
    (machine.source_dir / "0/0").write_text("changed")
    recovers(machine, before)


def test_leftovers_of_a_killed_run_do_not_keep_the_next_one_from_its_inodes(machine: BackedUpMachine) -> None:
    before = machine.snapshots()
    # As a run leaves it that was killed together with its storage: nothing was given back.
    staging = LinkDest(machine.place).prepare(before[-1]).directory
    number = 0
    try:
        while True:
            (staging / f"left {number}").touch()
            number += 1
    except OSError:
        assert free_inodes(machine) == 0
    (machine.source_dir / "0/0").write_text("changed")
    recovers(machine, before)


def test_runs_go_on_to_fail_while_the_source_is_too_large_and_leave_room_for_others(machine: BackedUpMachine) -> None:
    before = machine.snapshots()
    files = flood(machine)
    for _ in range(3):
        assert not machine.back_up().success
        assert free_inodes(machine) > INODES // 3
    assert machine.snapshots() == before
    for path in files:
        path.unlink()
    recovers(machine, before)


def test_without_history_too_the_next_run_is_a_good_one(tmp_path: Path, volume: Path) -> None:
    keys: dict[str, Any] = {
        "volumes": {"data": {"path": str(volume)}},
        "low_water_free_pct": 3,
        "snapshot_mode": "none",
    }
    with backed_up_machine(tmp_path, volume=volume, **keys) as machine:
        (machine.source_dir / "sub").mkdir()
        (machine.source_dir / "sub/file").write_text("first")
        assert machine.back_up().success
        files = [*flood(machine), machine.source_dir / "sub/more"]
        files[-1].write_text("new")
        assert not machine.back_up().success
        assert (machine.place.working_tree / "sub/file").read_text() == "first"
        assert free_inodes(machine) > INODES // 3
        for path in files:
            path.unlink()
        (machine.source_dir / "sub/file").write_text("second")
        outcome = machine.back_up()
        assert outcome.success, outcome.summary
        assert machine.differences(machine.place.working_tree) == []
