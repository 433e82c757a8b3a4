"""The limits of one run: time, bytes, files, memory, the machine's quota, and the reserve of the volume."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.errors import BackupFailed
from turku.storage.containment import quota
from turku.storage.fs import tree as fs

if TYPE_CHECKING:
    from turku.storage.config.model import DiskConfig, StorageConfig

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

    def remaining(self, seconds: float, written_bytes: int) -> RunLimits:
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


@dataclass(frozen=True)
class FreeSpace:
    """The space of a volume without root's reserve. Inodes are 0 if its file system counts none."""

    total_bytes: int
    free_bytes: int
    total_inodes: int
    free_inodes: int

    @property
    def free_percent(self) -> float:
        """The free share of space or of inodes, whichever is smaller."""
        shares = [100.0 * self.free_bytes / self.total_bytes if self.total_bytes else 0.0]
        if self.total_inodes:
            shares.append(100.0 * self.free_inodes / self.total_inodes)
        return min(shares)


def free_space(path: Path) -> FreeSpace:
    """Return the space of the volume that holds ``path``. Raises BackupFailed if it cannot be read."""
    try:
        status = fs.volume_status(path)
    except OSError as error:
        raise BackupFailed(f"{path}: cannot read free space: {error.strerror or error}") from error
    return FreeSpace(
        total_bytes=(status.f_blocks - status.f_bfree + status.f_bavail) * status.f_frsize,
        free_bytes=status.f_bavail * status.f_frsize,
        total_inodes=status.f_files,
        free_inodes=status.f_favail,
    )


def run_limits(configuration: StorageConfig, machine_dir: Path, *, clock: Clock = SYSTEM_CLOCK) -> RunLimits:
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
    counted = quota.RUNS.finished_bytes(machine_dir)
    quota_bytes = configuration.disk.machine_quota_bytes
    if quota_bytes is not None:
        used = quota.used_bytes(configuration.state, machine_dir, quota_bytes, clock)
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


def lacks_space(configuration: DiskConfig, machine_dir: Path) -> bool:
    """Return True if the volume is full or below its low-water mark. A run must then not keep its staging files."""
    space = free_space(machine_dir)
    has_few_inodes = space.total_inodes > 0 and space.free_inodes < _MINIMUM_INODES
    is_full = space.free_bytes < _MINIMUM_BYTES or has_few_inodes
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
