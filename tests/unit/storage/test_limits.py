"""Limits: what a run may use, when it must wait, and when it is over its bounds."""

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.backed_up_machine import storage_configuration

from turku.errors import BackupFailed
from turku.storage.config.model import StorageConfig
from turku.storage.containment import limits
from turku.storage.containment.limits import RunLimits
from turku.storage.containment.watchdog import Watchdog
from turku.storage.fs import disk_usage
from turku.storage.fs.disk_usage import VolumeSpace

BIG = 1 << 40


class SetClock:
    """A clock that stands where the test puts it."""

    def __init__(self) -> None:
        self.seconds = datetime(2026, 1, 31, tzinfo=UTC).timestamp()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic_seconds(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def machine_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "volume" / "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
    directory.mkdir(parents=True)
    return directory


def configuration(tmp_path: Path, **keys: Any) -> StorageConfig:
    return storage_configuration(tmp_path / "storage", **{"low_water_free_pct": 0, **keys})


def test_the_smaller_share_of_space_and_inodes_counts() -> None:
    assert VolumeSpace(0, 100, 50, used_percent=50).free_percent == 50
    assert VolumeSpace(0, 100, 50, used_percent=50, inodes_used_percent=99).free_percent == 1


def test_a_run_waits_below_the_low_water_mark(tmp_path: Path, machine_dir: Path) -> None:
    with pytest.raises(BackupFailed, match="below the low-water mark of 100 %"):
        limits.run_limits(configuration(tmp_path, low_water_free_pct=100), machine_dir)


def test_a_run_that_started_is_ended_at_half_of_the_mark(tmp_path: Path, machine_dir: Path) -> None:
    bounds = limits.run_limits(configuration(tmp_path, low_water_free_pct=0.002), machine_dir)
    assert bounds.reserve_percent == pytest.approx(0.001)


def test_memory_is_limited_to_half_of_the_hosts_unless_the_operator_says_otherwise(
    tmp_path: Path, machine_dir: Path
) -> None:
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    assert limits.run_limits(configuration(tmp_path), machine_dir).memory_bytes == half
    assert limits.run_limits(configuration(tmp_path, max_run_memory_bytes=5), machine_dir).memory_bytes == 5


def test_a_file_with_several_names_is_measured_once(machine_dir: Path) -> None:
    (machine_dir / "first").write_bytes(b"x" * 100_000)
    alone = disk_usage.measured_bytes(machine_dir)
    (machine_dir / "snapshot").mkdir()
    only_directory = disk_usage.measured_bytes(machine_dir) - alone
    for name in "abc":
        os.link(machine_dir / "first", machine_dir / "snapshot" / name)
    assert alone >= 100_000
    assert disk_usage.measured_bytes(machine_dir) == pytest.approx(alone + only_directory, abs=4096)


def test_links_out_of_a_tree_are_not_followed_when_it_is_measured(machine_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "large").write_bytes(b"x" * 1_000_000)
    (machine_dir / "link").symlink_to(tmp_path / "elsewhere")
    assert disk_usage.measured_bytes(machine_dir) < 100_000


def test_a_machine_over_its_quota_waits(tmp_path: Path, machine_dir: Path) -> None:
    (machine_dir / "data").write_bytes(b"x" * 200_000)
    with pytest.raises(BackupFailed, match="quota"):
        limits.run_limits(configuration(tmp_path, machine_quota_bytes=100_000), machine_dir)


def test_a_run_may_write_what_the_quota_left(tmp_path: Path, machine_dir: Path) -> None:
    (machine_dir / "data").write_bytes(b"x" * 200_000)
    used = disk_usage.measured_bytes(machine_dir)
    bounds = limits.run_limits(configuration(tmp_path, machine_quota_bytes=BIG, max_run_bytes=2 * BIG), machine_dir)
    assert bounds.bytes == BIG - used
    assert "machine_quota_bytes" in bounds.bytes_reason
    assert limits.run_limits(configuration(tmp_path, machine_quota_bytes=BIG, max_run_bytes=7), machine_dir).bytes == 7


def test_the_bytes_that_runs_wrote_are_added_up(tmp_path: Path, machine_dir: Path) -> None:
    storage, clock = configuration(tmp_path, machine_quota_bytes=1_000_000), SetClock()
    before = limits.run_limits(storage, machine_dir, clock=clock).bytes
    limits.record_usage(storage, machine_dir, 300_000)
    assert before is not None
    assert limits.run_limits(storage, machine_dir, clock=clock).bytes == before - 300_000


def test_near_the_quota_the_truth_is_measured_again_but_not_at_every_run(tmp_path: Path, machine_dir: Path) -> None:
    storage, clock = configuration(tmp_path, machine_quota_bytes=1_000_000), SetClock()
    limits.run_limits(storage, machine_dir, clock=clock)
    limits.record_usage(storage, machine_dir, 5_000_000)
    with pytest.raises(BackupFailed, match="quota"):
        limits.run_limits(storage, machine_dir, clock=clock)
    clock.sleep(7 * 3600)
    bounds = limits.run_limits(storage, machine_dir, clock=clock)
    assert bounds.bytes is not None
    assert bounds.bytes > 900_000


def test_a_broken_record_of_use_is_measured_anew(tmp_path: Path, machine_dir: Path) -> None:
    storage = configuration(tmp_path, machine_quota_bytes=BIG)
    limits.run_limits(storage, machine_dir)
    path = storage.state.var_dir / "usage" / f"{machine_dir.name}.json"
    path.write_text('{"used_bytes": ')
    assert limits.run_limits(storage, machine_dir).bytes is not None


def test_without_a_quota_nothing_is_measured_or_kept(tmp_path: Path, machine_dir: Path) -> None:
    storage = configuration(tmp_path)
    assert limits.run_limits(storage, machine_dir).bytes is None
    limits.record_usage(storage, machine_dir, 1)
    assert not (storage.state.var_dir / "usage").exists()


# --- the watch, whose process is the test's own


def watch(tree: Path, bounds: RunLimits, clock: SetClock | None = None) -> Watchdog:
    return Watchdog(bounds, process=os.getpid(), tree=tree, clock=clock or SetClock())


def test_a_run_within_its_bounds_has_no_fault(machine_dir: Path) -> None:
    bounds = RunLimits(seconds=10, bytes=BIG, files=1_000_000_000, memory_bytes=BIG)
    assert watch(machine_dir, bounds).violation() is None
    assert watch(machine_dir, RunLimits()).violation() is None


def test_a_run_that_takes_too_long_is_over(machine_dir: Path) -> None:
    clock = SetClock()
    watched = watch(machine_dir, RunLimits(seconds=10), clock)
    clock.sleep(11)
    assert "max_run_seconds" in (watched.violation() or "")


def test_a_run_that_takes_too_much_memory_is_over(machine_dir: Path) -> None:
    assert "max_run_memory_bytes" in (watch(machine_dir, RunLimits(memory_bytes=1)).violation() or "")


def test_a_run_is_over_when_the_volumes_reserve_is_touched(machine_dir: Path) -> None:
    assert "free" in (watch(machine_dir, RunLimits(reserve_percent=100)).violation() or "")


class NoProcess(Watchdog):
    """A watch of a process that reports nothing: what the volume says remains."""

    def __init__(self, tree: Path, bounds: RunLimits) -> None:
        super().__init__(bounds, process=(1 << 22) + 1, tree=tree)

    def pretend(self, **figures: int) -> None:
        """The run began with so much more room than there is now."""
        now = limits.free_space(self.tree)
        self._reference = replace(now, **{name: getattr(now, name) + value for name, value in figures.items()})


def test_many_new_files_are_counted_when_the_volume_lost_inodes(machine_dir: Path) -> None:
    watched = NoProcess(machine_dir, RunLimits(files=5))
    for number in range(10):
        (machine_dir / str(number)).touch()
    watched.pretend(free_inodes=10)
    assert "max_run_files" in (watched.violation() or "")


def test_a_run_is_not_blamed_for_inodes_and_bytes_that_others_took(machine_dir: Path) -> None:
    (machine_dir / "one").touch()
    watched = NoProcess(machine_dir, RunLimits(files=5, bytes=1_000_000))
    watched.pretend(free_inodes=10, available_bytes=50_000_000)
    assert watched.violation() is None


def test_bytes_are_found_where_the_kernel_reports_none_for_the_process(machine_dir: Path) -> None:
    watched = NoProcess(machine_dir, RunLimits(bytes=10_000))
    (machine_dir / "large").write_bytes(b"x" * 100_000)
    os.sync()
    watched.pretend(available_bytes=100_000_000)
    assert "max_run_bytes" in (watched.violation() or "")


def test_files_that_an_earlier_snapshot_shares_are_not_new(machine_dir: Path) -> None:
    (machine_dir / "old").mkdir()
    (machine_dir / "new").mkdir()
    for number in range(10):
        (machine_dir / "old" / str(number)).touch()
    watched = NoProcess(machine_dir / "new", RunLimits(files=5))
    for number in range(10):
        os.link(machine_dir / "old" / str(number), machine_dir / "new" / str(number))
    watched.pretend(free_inodes=10)
    assert watched.violation() is None
