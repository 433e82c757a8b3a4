"""A transfer that goes on beyond the end of a bandwidth window, with real rsync."""

import logging
import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.backed_up_machine import BackedUpMachine, backed_up_machine

pytestmark = pytest.mark.storage_rsync

SIZE_BYTES = 4 * 1024 * 1024
STOPPING = """
echo "$*" >> {log}
wanted=; for word; do shift; case $word in --stop-after=*) wanted=1;; *) set -- "$@" "$word";; esac; done
[ "$wanted" ] || exec "$0" "$@"
"$0" "$@" & child=$!
for tenth in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    sleep 0.1
    kill -0 $child 2>/dev/null || {{ wait $child; exit $?; }}
done
echo "stopping at requested limit" >&2
kill $child
wait $child
exit 12
"""
"""An rsync whose minutes last two seconds: it stops as the real one does, with its words and its exit code."""


@dataclass
class FastClock:
    """A minute for each second, from a moment on."""

    begin: datetime
    _started: float = field(default_factory=time.monotonic)

    def monotonic_seconds(self) -> float:
        return 60 * (time.monotonic() - self._started)

    def now(self) -> datetime:
        return self.begin + timedelta(seconds=self.monotonic_seconds())

    def sleep(self, seconds: float) -> None:
        raise AssertionError("a backup does not sleep")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[BackedUpMachine]:
    with backed_up_machine(tmp_path) as machine:
        (machine.source_dir / "large").write_bytes(os.urandom(SIZE_BYTES))
        (machine.source_dir / "small").write_text("content")
        yield machine


def stopping(machine: BackedUpMachine, log: Path, begin: datetime) -> BackedUpMachine:
    """The machine at a storage with that rsync, where it is ``begin`` now."""
    at = machine.with_rsync("sh", "-c", STOPPING.format(log=shlex.quote(str(log))), "rsync")
    clock = FastClock(begin - timedelta(minutes=1))
    return replace(at, clock=_Moving(clock))  # type: ignore[arg-type]


class _Moving:
    """A clock that ``back_up`` moves by a minute. The fast clock has it from the beginning."""

    def __init__(self, clock: FastClock) -> None:
        self._clock = clock
        self.now, self.monotonic_seconds, self.sleep = clock.now, clock.monotonic_seconds, clock.sleep

    @property
    def moment(self) -> datetime:
        return self._clock.begin

    @moment.setter
    def moment(self, moment: datetime) -> None:
        self._clock.begin = moment


@pytest.mark.parametrize("mode", ["link-dest", "none"])
def test_at_the_end_of_a_window_the_transfer_goes_on_with_the_next_limit_from_what_it_has(
    machine: BackedUpMachine, tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "commands"
    limited = stopping(machine, log, datetime(2026, 11, 24, 17, 59, 30, tzinfo=UTC))
    with caplog.at_level(logging.INFO):
        outcome = limited.back_up(bandwidth_windows="1M 0800-1800, 0", snapshot_mode=mode)
    assert outcome.success, outcome.summary
    first, second = (line for line in log.read_text().splitlines() if "rsync://" in line)
    assert "--bwlimit=1024 --stop-after=1" in first
    assert "--bwlimit" not in second
    assert ("--partial" in first) == (mode == "link-dest")
    tree = machine.place.working_tree if mode == "none" else machine.place.snapshot(limited.snapshots()[-1])
    assert machine.differences(tree) == []
    messages = [record.getMessage() for record in caplog.records if "bandwidth" in record.getMessage()]
    assert messages == ["bandwidth: at most 1024 KiB/s until 18:00", "bandwidth: no limit until 08:00"]
    if mode == "none":
        return
    # What had come over the first time was not sent again.
    (literal,) = (line for line in outcome.summary.splitlines() if line.startswith("Literal data:"))
    assert int(literal.split()[2]) < SIZE_BYTES - 256 * 1024


def test_a_transfer_that_breaks_within_a_window_is_not_begun_again(machine: BackedUpMachine, tmp_path: Path) -> None:
    log = tmp_path / "commands"
    # Nine hours are left of it: what rsync says is not so.
    limited = stopping(machine, log, datetime(2026, 11, 24, 9, 0, tzinfo=UTC))
    outcome = limited.back_up(bandwidth_windows="1M 0800-1800, 0")
    assert not outcome.success
    assert len([line for line in log.read_text().splitlines() if "rsync://" in line]) == 1


def test_a_transfer_of_differences_alone_goes_on_too(machine: BackedUpMachine, tmp_path: Path) -> None:
    for number in range(200):
        (machine.source_dir / f"file-{number}").write_text(str(number))
    assert machine.back_up().success
    (machine.source_dir / "large").write_bytes(os.urandom(SIZE_BYTES))
    (machine.source_dir / "file-7").unlink()
    limited = stopping(machine, tmp_path / "commands", datetime(2026, 11, 24, 17, 59, 30, tzinfo=UTC))
    outcome = limited.back_up(bandwidth_windows="1M 0800-1800, 0")
    assert outcome.success, outcome.summary
    first, second = limited.snapshots()
    assert machine.differences(machine.place.snapshot(second)) == []
    assert (machine.place.snapshot(first) / "file-7").exists()


def test_windows_that_make_no_sense_are_refused(machine: BackedUpMachine) -> None:
    outcome = machine.back_up(bandwidth_windows="20M 0800-1800")
    assert not outcome.success
    assert outcome.summary.startswith("bwlimit: ")
