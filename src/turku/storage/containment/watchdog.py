"""The watchdog of a run, which ends the run when it exceeds its limits.

Accuracy: a run is checked twice a second, so it may pass a limit by what it writes in that time. Bytes are those that
the kernel counts as written by the run's own processes. File systems such as tmpfs do not report them, and none counts
files. There the volume's free space raises the alarm. Other runs may raise it too, so the entries that this run made in
its tree are then counted, and no run is ended for the writes of another. In a tree that rsync changes in place only
files are counted that way.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from turku.core.cancellation import NEVER, Cancellation
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.command import Child
from turku.core.filesystem.directory_tree import DirectoryTree
from turku.errors import BackupFailed
from turku.storage.containment import limits, processes
from turku.storage.containment.limits import (
    RunLimits,
    SpaceLimitExceeded,
    free_space,
    reserve_violation,
)
from turku.storage.fs import disk_usage
from turku.storage.fs.disk_usage import VolumeSpace

_CHECK_SECONDS: Final = 0.5
_NO_INODES_CHECK_SECONDS: Final = 60.0
"""btrfs and others count no inodes. There a run's files are counted this often at most."""


class Watchdog:
    """Checks a run against its limits.

    ``process`` is the child that was started. ``tree`` is the directory to which it writes, on the volume to watch. In
    a tree that is not new, a partly changed file is not counted as written whole.
    """

    def __init__(
        self,
        limits: RunLimits,
        *,
        process: int,
        tree: Path,
        is_new_tree: bool = True,
        machine_dir: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
        spooled_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        """``spooled_bytes`` returns the size of this process's change logs on the volume while the run goes on."""
        self._spooled_bytes = spooled_bytes
        self._limits = limits
        self._machine_dir = machine_dir
        self._is_new_tree = is_new_tree
        self._process = process
        self._tree = tree
        self._clock = clock
        self._begin_monotonic = clock.monotonic_seconds()
        self._begin = clock.now().timestamp()
        self._reference = self._before = free_space(tree)
        self._counted = self._begin_monotonic
        self.written_bytes = 0
        """The bytes that the run has written so far, as far as known."""
        self.exceeds_space = False
        """True if the violation is about space and not about time or memory."""

    def violation(self) -> str | None:
        """Return the limit that the run exceeds, as a sentence. None if it keeps within all limits."""
        limits = self._limits
        seconds = self._clock.monotonic_seconds() - self._begin_monotonic
        if limits.seconds is not None and seconds > limits.seconds:
            return f"it ran longer than {limits.seconds:g} s (max_run_seconds)"
        written, memory = processes.usage(self._process)
        self.written_bytes = max(self.written_bytes, written)
        if limits.memory_bytes is not None and memory > limits.memory_bytes:
            return f"it used more than {limits.memory_bytes} bytes of memory (max_run_memory_bytes)"
        violation = self._space_violation()
        self.exceeds_space = violation is not None
        return violation

    def total_written_bytes(self) -> int:
        """Return the bytes that the run used in the end, rather too many than too few.

        A short run may end before its first check. The space that the volume lost meanwhile then counts for it.
        """
        return max(self.written_bytes, self._before.available_bytes - free_space(self._tree).available_bytes)

    def _space_violation(self) -> str | None:
        now = free_space(self._tree)
        reserve = self._limits.reserve_percent
        if now.free_percent < reserve:
            return reserve_violation(now.free_percent, reserve)
        return self._bytes_violation() or self._count_violation(now)

    def _bytes_violation(self) -> str | None:
        limit = self._limits.bytes
        written = self.written_bytes
        if self._limits.shares_bytes and self._machine_dir is not None:
            written = limits.RUNS.written_bytes(self._machine_dir) - self._limits.counted_bytes
        if limit is not None and written + self._spooled_bytes() > limit:
            return f"it wrote more than {limit} bytes ({self._limits.bytes_reason})"
        return None

    def _count_violation(self, now: VolumeSpace) -> str | None:
        limits = self._limits
        alarm = limits.bytes is not None and self._reference.available_bytes - now.available_bytes > limits.bytes
        if limits.files is not None and not alarm:
            if self._reference.free_inodes is not None and now.free_inodes is not None:
                alarm = self._reference.free_inodes - now.free_inodes > limits.files
            else:
                alarm = self._clock.monotonic_seconds() - self._counted > _NO_INODES_CHECK_SECONDS
        if not alarm:
            return None
        # All runs change the volume's free space, so only the entries that this run made count.
        new_files, new_bytes = _made_since(self._tree, self._begin)
        if self._is_new_tree:
            self.written_bytes = max(self.written_bytes, new_bytes)
        self._reference = now
        self._counted = self._clock.monotonic_seconds()
        if limits.files is not None and new_files > limits.files:
            return f"it made more than {limits.files} files (max_run_files)"
        return self._bytes_violation()


def wait_for(child: Child, watchdog: Watchdog, cancellation: Cancellation = NEVER) -> int:
    """Wait for the child and return its exit code.

    Raises SpaceLimitExceeded or BackupFailed if the run exceeds a limit, and whatever ``cancellation`` raises. The
    child still runs then.
    """
    descriptor = os.pidfd_open(child.pid)
    try:
        while descriptor not in select.select([descriptor, cancellation.descriptor], [], [], _CHECK_SECONDS)[0]:
            cancellation.check()
            violation = watchdog.violation()
            if violation is not None:
                kind = SpaceLimitExceeded if watchdog.exceeds_space else BackupFailed
                raise kind(f"the run was ended: {violation}", hint="raise the limit if this was meant to be")
    finally:
        os.close(descriptor)
    return child.wait(_CHECK_SECONDS)


def _made_since(tree: Path, moment: float) -> tuple[int, int]:
    """Return number and disk usage in bytes of the entries below ``tree`` that were made since a Unix time."""
    files = size_bytes = 0
    with suppress(OSError), DirectoryTree(tree) as opened:
        for each in opened.walk():
            status = each.status
            # The receiver cannot set the change time. A file with more links belongs to an earlier snapshot.
            if status.st_ctime >= moment - 1 and (status.st_nlink == 1 or each.is_directory):
                files += 1
                size_bytes += status.st_blocks * disk_usage.BLOCK_BYTES
    return files, size_bytes
