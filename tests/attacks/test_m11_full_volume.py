"""M11: a machine fills the volume: what is there stays whole, new runs wait, and others get their room back.

The volume is a small file system of its own, as only root can mount one.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine, fingerprint
from tests.support.malicious_rsync_server import SPOKEN, Entry, MaliciousRsyncServer

from turku.core import command
from turku.core.configuration.declaration import with_values
from turku.errors import CommandFailed
from turku.storage.backup.job import BackupReport
from turku.storage.backup.run import back_up
from turku.storage.containment import limits
from turku.storage.fs import disk_usage

MIB = 1024 * 1024
ATTACKER = "11111111-1111-4111-8111-111111111111"

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small volume")]


@contextmanager
def small_volume(path: Path, *, size_bytes: int, inodes: int) -> Iterator[None]:
    path.mkdir()
    try:
        command.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},nr_inodes={inodes},mode=700", "none", path],
            timeout_seconds=10,
        )
    except CommandFailed as error:
        pytest.skip(f"cannot mount here: {error.details}")
    try:
        yield
    finally:
        command.run(["umount", path], timeout_seconds=10)


class Neighbours:
    """An honest machine with history, and an attacker, on one volume of 64 MiB and 4000 inodes."""

    def __init__(self, honest: BackedUpMachine, volume: Path) -> None:
        self.honest = honest
        self.volume = volume
        self.attacker_dir = volume / ATTACKER
        self.attacker_dir.mkdir()
        for number in range(3):
            (honest.source_dir / f"file{number}").write_bytes(os.urandom(100_000))
            assert honest.back_up().success
        self._before = fingerprint(honest.place.snapshots_dir)

    @property
    def free_percent(self) -> float:
        return limits.free_space(self.volume).free_percent

    def attack(
        self,
        entries: Iterable[Entry],
        *,
        endless: bool = False,
        content: bytes = b"owned\n",
        deletions: int = 0,
        **keys: Any,
    ) -> BackupReport:
        """Do one run for the attacker. ``keys`` change the storage's configuration."""
        storage = with_values(self.honest.storage, **keys)
        with MaliciousRsyncServer(entries, endless=endless, content=content, deletions=deletions) as server:
            job = replace(self.honest.job(**SPOKEN), machine_dir=self.attacker_dir, rsync_port=server.port)
            return back_up(job, storage, clock=self.honest.clock)

    def assert_history_is_whole(self) -> None:
        assert fingerprint(self.honest.place.snapshots_dir) == self._before


@pytest.fixture
def neighbours(tmp_path: Path) -> Iterator[Neighbours]:
    with ExitStack() as stack:
        volume = tmp_path / "volume"
        stack.enter_context(small_volume(volume, size_bytes=64 * MIB, inodes=4000))
        honest = stack.enter_context(
            backed_up_machine(tmp_path, low_water_free_pct=20, max_run_seconds=60, keep_devices=False)
        )
        yield Neighbours(honest, volume)


def test_an_endless_file_is_ended_before_the_volume_is_full_and_gives_its_room_back(neighbours: Neighbours) -> None:
    outcome = neighbours.attack([Entry(b"endless", size=2**50)], endless=True)
    assert not outcome.success
    neighbours.assert_history_is_whole()
    assert neighbours.free_percent > 80
    assert neighbours.honest.back_up().success


def test_a_flood_of_files_does_not_keep_the_inodes(neighbours: Neighbours) -> None:
    outcome = neighbours.attack(Entry(b"%08d" % number, size=1) for number in range(20_000))
    assert not outcome.success
    neighbours.assert_history_is_whole()
    assert neighbours.free_percent > 80
    assert neighbours.honest.back_up().success


def test_below_the_low_water_mark_no_run_starts_and_no_snapshot_is_removed(neighbours: Neighbours) -> None:
    filler = neighbours.volume / "somebody else's"
    filler.write_bytes(b"x" * 55 * MIB)
    outcome = neighbours.honest.back_up(retention="last 1 snapshots")
    assert not outcome.success
    assert "not started" in outcome.summary
    assert "low-water" in outcome.summary
    neighbours.assert_history_is_whole()
    filler.unlink()
    assert neighbours.honest.back_up().success


def test_a_volume_without_room_for_one_more_byte_keeps_its_history_whole(neighbours: Neighbours) -> None:
    # No mark, no reserve: the file system itself says that it is full, in the middle of the attacker's run.
    outcome = neighbours.attack([Entry(b"endless", size=2**50)], endless=True, low_water_free_pct=0.0)
    assert not outcome.success
    neighbours.assert_history_is_whole()


def test_a_machine_gets_no_more_than_its_quota_run_after_run(neighbours: Neighbours) -> None:
    quota, outcomes = 8 * MIB, []
    for number in range(8):
        # Each run is within all limits of a run. Together they are not. Between two runs the use may be measured again.
        neighbours.honest.clock.moment += timedelta(hours=7)
        new = [Entry(b"%d-%d" % (number, part), size=MIB) for part in range(2)]
        outcomes.append(neighbours.attack(new, content=os.urandom(MIB), machine_quota_bytes=quota))
    assert outcomes[0].success, outcomes[0].summary
    assert not outcomes[-1].success
    assert "machine_quota_bytes" in outcomes[-1].summary
    assert disk_usage.measured_bytes(neighbours.attacker_dir) < quota + 3 * MIB
    neighbours.assert_history_is_whole()
    assert neighbours.honest.back_up().success


def test_a_flood_of_deletions_takes_no_more_than_a_run_may(neighbours: Neighbours) -> None:
    # Each is a line of rsync's own, mark and all, which the storage keeps on the volume until it has read them.
    entries = [Entry(b"file", size=6)]
    assert neighbours.attack(entries).success
    outcome = neighbours.attack(entries, deletions=200_000, max_run_bytes=4 * MIB)
    assert not outcome.success
    assert "max_run_bytes" in outcome.summary
    assert neighbours.free_percent > 80
    neighbours.assert_history_is_whole()


def with_directories(neighbours: Neighbours, count: int, **keys: Any) -> list[BackupReport]:
    """Two runs for a source of so many directories, of which the second is incremental."""
    honest = neighbours.honest
    storage = with_values(honest.storage, **keys)
    for number in range(count):
        (honest.source_dir / f"{number}").mkdir()
    outcomes = []
    for number in range(2):
        (honest.source_dir / "file").write_text(f"{number}")
        honest.clock.moment += timedelta(hours=1)
        outcomes.append(back_up(honest.job(), storage, clock=honest.clock))
    return outcomes


def test_the_directories_of_a_new_snapshot_are_files_that_a_run_makes(neighbours: Neighbours) -> None:
    first, second = with_directories(neighbours, 500, max_run_files=550)
    assert (first.success, first.strategy) == (True, "incremental"), first.summary
    assert (second.success, second.strategy) == (True, "incremental"), second.summary
    third, _again = with_directories(neighbours, 0, max_run_files=450)
    assert not third.success
    assert "max_run_files" in third.summary


def test_the_directories_of_a_new_snapshot_leave_the_reserve(neighbours: Neighbours) -> None:
    outcomes = with_directories(neighbours, 1000)
    while outcomes[-1].success:
        outcomes += with_directories(neighbours, 0)
    assert len(outcomes) == 4
    first_failure = next(outcome for outcome in outcomes if not outcome.success)
    assert "low_water_free_pct" in first_failure.summary
    # The room is given back.
    assert neighbours.free_percent > 20


def test_the_directories_of_a_new_snapshot_count_against_the_quota(neighbours: Neighbours) -> None:
    with_directories(neighbours, 400, machine_quota_bytes=100 * MIB)
    machine_dir = neighbours.honest.machine_dir
    usage = limits._read_usage(limits._usage_path(neighbours.honest.storage.state, machine_dir))
    assert usage is not None
    assert usage.used_bytes >= 2 * 400 * limits.DIRECTORY_BYTES
