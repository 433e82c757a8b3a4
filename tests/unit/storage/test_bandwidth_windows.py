"""Transfers across bandwidth windows: their parts, and the limits of each part."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.backed_up_machine import storage_configuration

from turku.policy import bandwidth
from turku.storage.config.model import StorageConfig
from turku.storage.containment.limits import RunLimits, SpaceLimitExceeded
from turku.storage.rsync import bandwidth_windows, result, version
from turku.storage.rsync.request import TransferOptions
from turku.storage.rsync.result import TransferResult

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.moment = NOON

    def now(self) -> datetime:
        return self.moment

    def monotonic_seconds(self) -> float:
        return self.moment.timestamp()

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorageConfig:
    monkeypatch.setattr(version, "installed", lambda _command: version.RsyncVersion((3, 5, 0)))
    return storage_configuration(tmp_path, timezone="Europe/Paris")


def stopped(**fields: object) -> TransferResult:
    done = TransferResult(
        result.exit_status(12), (), ("stopping at requested limit", "rsync error"), all_lines_parsed=True
    )
    return replace(done, **fields)  # type: ignore[arg-type]


COMPLETE = TransferResult(result.exit_status(0), (), (), all_lines_parsed=True)


def run(
    clock: Clock,
    storage: StorageConfig,
    text: str,
    part: Callable[[TransferOptions, RunLimits], TransferResult],
    **bounds: object,
) -> TransferResult:
    selected = TransferOptions(bandwidth_limits=bandwidth.parse(text), keep_partial_files=True)
    return bandwidth_windows.run(selected, RunLimits(**bounds), part, configuration=storage, clock=clock)  # type: ignore[arg-type]


def test_a_constant_limit_is_one_part_that_keeps_no_half_files(clock: Clock, storage: StorageConfig) -> None:
    parts: list[TransferOptions] = []
    assert run(clock, storage, "20M", lambda selected, _bounds: parts.append(selected) or COMPLETE) == COMPLETE
    assert [(each.stop_after_minutes, each.keep_partial_files) for each in parts] == [(None, False)]


def test_each_part_has_the_limit_of_its_time_and_ends_where_that_changes(clock: Clock, storage: StorageConfig) -> None:
    parts: list[tuple[int | None, int | None]] = []

    def part(selected: TransferOptions, _bounds: RunLimits) -> TransferResult:
        parts.append((selected.bandwidth_kib_per_second, selected.stop_after_minutes))
        if len(parts) == 3:
            return COMPLETE
        clock.moment += timedelta(minutes=selected.stop_after_minutes or 0)
        return stopped()

    # 13:00:30 in Paris.
    clock.moment += timedelta(seconds=30)
    done = run(clock, storage, "1M 1300-1400, 2M 1400-1500, 0", part)
    assert parts == [(1024, 60), (2048, 60), (None, 22 * 60)]
    assert (done.exit_status.success, done.was_restarted, done.all_lines_parsed) == (True, True, False)


def test_a_transfer_that_breaks_before_the_boundary_has_failed(clock: Clock, storage: StorageConfig) -> None:
    parts: list[TransferOptions] = []
    done = run(clock, storage, "1M 1300-1400, 0", lambda selected, _bounds: parts.append(selected) or stopped())
    assert not done.exit_status.success
    assert len(parts) == 1


def test_a_transfer_that_breaks_by_itself_after_the_boundary_has_failed(clock: Clock, storage: StorageConfig) -> None:
    def part(_selected: TransferOptions, _bounds: RunLimits) -> TransferResult:
        clock.moment += timedelta(hours=3)
        return stopped(last_lines=("rsync error",))

    assert not run(clock, storage, "1M 1300-1400, 0", part).exit_status.success


def test_all_parts_together_keep_within_the_bounds_of_one_run(clock: Clock, storage: StorageConfig) -> None:
    seen: list[RunLimits] = []

    def part(selected: TransferOptions, bounds: RunLimits) -> TransferResult:
        seen.append(bounds)
        clock.moment += timedelta(minutes=selected.stop_after_minutes or 0)
        return stopped(written_bytes=600) if len(seen) < 3 else COMPLETE

    with pytest.raises(SpaceLimitExceeded):
        run(clock, storage, "1M 1300-1400, 2M 1400-1500, 0", part, seconds=5000.0, bytes=1000)
    assert [(each.seconds, each.bytes) for each in seen] == [(5000.0, 1000), (1400.0, 400)]


def test_an_rsync_that_cannot_stop_keeps_the_limit_it_began_with(
    clock: Clock, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version, "installed", lambda _command: version.RsyncVersion((3, 2, 2)))
    parts: list[TransferOptions] = []
    run(clock, storage, "1M 1300-1400, 0", lambda selected, _bounds: parts.append(selected) or COMPLETE)
    assert [(each.bandwidth_kib_per_second, each.stop_after_minutes) for each in parts] == [(1024, None)]
