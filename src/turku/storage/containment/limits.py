"""The limits of one run: time, bytes, files, memory, the machine's quota, and the reserve of the volume.

A quota counts the disk blocks of all snapshots of a machine, each hard-linked file once. The bytes that runs write are
added up. Space that deletion frees is found by measuring again when the sum comes near the quota.
"""

import logging
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from turku.core import durable
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.errors import BackupFailed
from turku.storage.fs import disk_usage
from turku.storage.fs.disk_usage import VolumeSpace

if TYPE_CHECKING:
    from turku.storage.config.model import DiskConfig, StorageConfig, StorageState
    from turku.storage.containment.watchdog import Watchdog

_NEAR_QUOTA: Final = 0.9
_MEASURE_AGAIN_SECONDS: Final = 6 * 3600.0
_LOG = logging.getLogger(__name__)


class _Usage(msgspec.Struct):
    used_bytes: int
    measured_at: float


def record_usage(configuration: "StorageConfig", machine_dir: Path, written_bytes: int) -> None:
    """Add the bytes of a run to the machine's usage. Does nothing without a quota."""
    if configuration.disk.machine_quota_bytes is None:
        return
    path = _usage_path(configuration.state, machine_dir)
    # Sources of a machine are backed up side by side.
    with _USAGE_LOCK:
        usage = _read_usage(path)
        if usage is not None:
            usage.used_bytes += written_bytes
            _write_usage(path, usage)


def used_bytes(configuration: "StorageState", machine_dir: Path, quota: int, clock: Clock) -> int:
    """Return the machine's usage in bytes, never less than it is while runs are the only writers."""
    path = _usage_path(configuration, machine_dir)
    with _USAGE_LOCK:
        usage = _read_usage(path)
        now = clock.now().timestamp()
        # The sum only grows, so it never lies below the truth. It is measured again only when that could matter.
        near = usage is not None and usage.used_bytes >= _NEAR_QUOTA * quota
        if usage is None or (near and not 0 <= now - usage.measured_at < _MEASURE_AGAIN_SECONDS):
            _LOG.info("measuring the disk space of %s", machine_dir)
            usage = _Usage(used_bytes=disk_usage.measured_bytes(machine_dir), measured_at=now)
            _write_usage(path, usage)
        return usage.used_bytes


def _usage_path(configuration: "StorageState", machine_dir: Path) -> Path:
    return configuration.var_dir / "usage" / f"{machine_dir.name}.json"


def _read_usage(path: Path) -> _Usage | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Usage)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _write_usage(path: Path, usage: _Usage) -> None:
    durable.make_private_directory(path.parent)
    durable.write_json(path, msgspec.to_builtins(usage))


class RunCounter:
    """The bytes that this process's runs wrote for each machine. Sources run side by side and share a quota."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._finished: Counter[Path] = Counter()
        self._running: dict[Path, list[Watchdog]] = defaultdict(list)

    def finished_bytes(self, machine_dir: Path) -> int:
        """Return the bytes that finished runs wrote."""
        return self._finished[machine_dir]

    def written_bytes(self, machine_dir: Path) -> int:
        """Return the bytes that finished and running runs wrote."""
        with self._lock:
            return self._finished[machine_dir] + sum(each.written_bytes for each in self._running[machine_dir])

    @contextmanager
    def counting(self, machine_dir: Path, watchdog: "Watchdog") -> Iterator[None]:
        """Count a run for the length of the block."""
        with self._lock:
            self._running[machine_dir].append(watchdog)
        try:
            yield
        finally:
            with self._lock:
                self._running[machine_dir].remove(watchdog)
                self._finished[machine_dir] += watchdog.written_bytes


RUNS = RunCounter()
_USAGE_LOCK = threading.Lock()


END_SHARE_OF_LOW_WATER: Final = 0.5
"""New runs wait below the low-water mark. A running one is ended below this share of it."""
DIRECTORY_BYTES = 4096
"""Size of a directory on the file systems that we know."""
_MINIMUM_BYTES = 1024**2
"""Space that a run needs for its own notes, and somewhat more."""
_MINIMUM_INODES = 50


class SpaceLimitExceeded(BackupFailed):
    """A run was ended because of the space that it used. The space is given back before others need it."""


@dataclass(frozen=True)
class RunLimits:
    """The resources that one run may use. None means no limit."""

    seconds: float | None = None
    bytes: int | None = None
    bytes_reason: str = "max_run_bytes"
    shares_bytes: bool = False
    """True if the machine's other runs in this process use the same bytes."""
    counted_bytes: int = 0
    """Bytes that finished runs of this process had written for the machine when the limits were set."""
    files: int | None = None
    memory_bytes: int | None = None
    reserve_percent: float = 0.0
    """A run is ended when its volume has less free than this, in space or in inodes."""

    def remaining(self, seconds: float, written_bytes: int) -> "RunLimits":
        """Return the limits after a part of a run. Raises SpaceLimitExceeded if nothing more may be written."""
        if self.bytes is not None and written_bytes >= self.bytes:
            raise SpaceLimitExceeded(
                f"the run was ended: it wrote more than {self.bytes} bytes ({self.bytes_reason})",
                hint="raise the limit if this was meant to be",
            )
        return replace(
            self,
            # With no time left, the watchdog ends the rest of the run at its first check.
            seconds=None if self.seconds is None else max(self.seconds - seconds, 0.0),
            bytes=None if self.bytes is None else self.bytes - written_bytes,
        )


def free_space(path: Path) -> VolumeSpace:
    """Return the space of the volume that holds ``path``. Raises BackupFailed if it cannot be read."""
    try:
        return disk_usage.volume_space(path)
    except OSError as error:
        raise BackupFailed(f"{path}: cannot read free space: {error.strerror or error}") from error


def run_limits(configuration: "StorageConfig", machine_dir: Path, *, clock: Clock = SYSTEM_CLOCK) -> RunLimits:
    """Return the limits of a run for the machine with this directory.

    Raises BackupFailed if the run must wait: its volume is below the low-water mark, or its quota is used up.
    """
    free = free_space(machine_dir).free_percent
    low_water = configuration.disk.low_water_free_pct
    if free < low_water:
        raise BackupFailed(
            f"not started: the volume has {free:.1f} % free, below the low-water mark of {low_water:g} %; "
            "what is there stays as it is",
            hint="make room or add a volume (low_water_free_pct sets the mark)",
        )
    limit, reason, shares = configuration.limits.max_run_bytes, "max_run_bytes", False
    counted = RUNS.finished_bytes(machine_dir)
    quota_bytes = configuration.disk.machine_quota_bytes
    if quota_bytes is not None:
        used = used_bytes(configuration.state, machine_dir, quota_bytes, clock)
        left = quota_bytes - used
        if left <= 0:
            raise BackupFailed(
                f"not started: the machine uses {used} bytes, its quota (machine_quota_bytes) is {quota_bytes}",
                hint="shorten its retention, exclude what is not needed, or raise the quota",
            )
        if limit is None or left < limit:
            limit, reason, shares = left, f"what its quota of {quota_bytes} (machine_quota_bytes) left", True
    return RunLimits(
        seconds=configuration.limits.max_run_seconds,
        bytes=limit,
        bytes_reason=reason,
        shares_bytes=shares,
        counted_bytes=counted,
        files=configuration.limits.max_run_files,
        memory_bytes=configuration.limits.max_run_memory_bytes or _half_of_memory_bytes(),
        reserve_percent=low_water * END_SHARE_OF_LOW_WATER,
    )


def lacks_space(configuration: "DiskConfig", machine_dir: Path) -> bool:
    """Return True if the volume is full or below its low-water mark. A run must then not keep its staging files."""
    space = free_space(machine_dir)
    has_few_inodes = space.free_inodes is not None and space.free_inodes < _MINIMUM_INODES
    is_full = space.available_bytes < _MINIMUM_BYTES or has_few_inodes
    return is_full or space.free_percent < configuration.low_water_free_pct


def check_directories(limits: RunLimits, tree: Path, count: int) -> None:
    """Check that our own code may make ``count`` directories below ``tree``, all that a copy by hard links takes.

    Raises SpaceLimitExceeded if they exceed the limits of the run, or leave too little of the volume.
    """
    free = free_space(tree).free_percent
    if limits.files is not None and count > limits.files:
        violation = f"its copy of the newest snapshot has more than {limits.files} directories (max_run_files)"
    elif limits.bytes is not None and count * DIRECTORY_BYTES > limits.bytes:
        violation = f"its copy of the newest snapshot takes more than {limits.bytes} bytes ({limits.bytes_reason})"
    elif free < limits.reserve_percent:
        violation = reserve_violation(free, limits.reserve_percent)
    else:
        return
    raise SpaceLimitExceeded(f"the run was ended: {violation}", hint="raise the limit if this was meant to be")


def reserve_violation(free_percent: float, reserve_percent: float) -> str:
    """Return the sentence for a volume with less free than its reserve."""
    return f"its volume has only {free_percent:.1f} % free (low_water_free_pct: ended below {reserve_percent:g} %)"


def _half_of_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
