"""The watchdog of a run, which ends the run when it exceeds its limits.

Accuracy: a run is checked twice a second, so it may pass a limit by what it writes in that time. Bytes are those that
the kernel counts as written by the run's own processes. File systems such as tmpfs do not report them, and none counts
files. There the volume's free space raises the alarm. Other runs may raise it too, so the entries that this run made in
its tree are then counted, and no run is ended for the writes of another. In a tree that rsync changes in place only
files are counted that way.
"""

import logging
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from turku.core import command
from turku.core.cancellation import NEVER, Cancellation, Cancelled
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.command import Child
from turku.core.filesystem.directory_tree import DirectoryTree
from turku.core.program_output.line_reading import drained
from turku.errors import BackupFailed, CommandFailed
from turku.storage.containment.limits import RUNS, RunLimits, SpaceLimitExceeded, free_space, reserve_violation
from turku.storage.fs import disk_usage
from turku.storage.fs.disk_usage import VolumeSpace


def usage(process: int) -> tuple[int, int]:
    """Return bytes written to disks and resident memory in bytes of a process and its descendants, reaped ones too."""
    written = resident = 0
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    for each in (process, *descendants(process)):
        directory = Path("/proc", str(each))
        # It may end, or be another user's, at any moment.
        with suppress(OSError, ValueError):
            for line in (directory / "io").read_text().splitlines():
                if line.startswith("write_bytes:"):
                    written += int(line.split()[1])
        with suppress(OSError, ValueError):
            resident += int((directory / "statm").read_text().split()[1]) * page_bytes
    return written, resident


def descendants(process: int) -> list[int]:
    """Return the running processes that the process and its children started."""
    found: list[int] = []
    waiting = [process]
    while waiting:
        with suppress(OSError):
            for thread in Path("/proc", str(waiting.pop()), "task").iterdir():
                with suppress(OSError):
                    children = [int(word) for word in (thread / "children").read_text().split()]
                    found += children
                    waiting += children
    return found


_END_TIMEOUT_SECONDS = 3.0
_LOG = logging.getLogger(__name__)


@contextmanager
def output_reader(
    child: command.Child,
    read: Callable[[IO[bytes]], None],
    *,
    abandon: Callable[[], None] = lambda: None,
    timeout_seconds: float | None = None,
) -> Iterator[threading.Thread]:
    """Read the child's output in a thread, to its end. The block waits for the child.

    Output that ``read`` leaves, for instance because it raised, is discarded. If the block raises, ``abandon`` makes
    ``read`` return and the child is ended, so that its stream is not closed under the thread. After the block the
    thread is joined, for ``timeout_seconds`` at most.
    """

    def read_all() -> None:
        with drained(child.stdout):
            try:
                read(child.stdout)
            except Cancelled:
                # The thread that waits for the child notices it too.
                return
            except Exception:
                _LOG.exception("reading the output of %s failed, the rest of it is ignored", child.argv[0])

    reader = threading.Thread(target=read_all, daemon=True)
    reader.start()
    try:
        yield reader
    except BaseException:
        abandon()
        _end(child)
        reader.join(_END_TIMEOUT_SECONDS)
        raise
    reader.join(timeout_seconds)


def _end(child: command.Child) -> None:
    """Ask the processes below the child to end, and give rsync a moment to remove half received files.

    A signal to the child itself would end bubblewrap, which kills all of them at once.
    """
    for process in descendants(child.pid):
        with suppress(OSError):
            os.kill(process, signal.SIGTERM)
    with suppress(CommandFailed):
        child.wait(_END_TIMEOUT_SECONDS)


_CHECK_SECONDS: Final = 0.5
_NO_INODES_CHECK_SECONDS: Final = 60.0
"""btrfs and others count no inodes. There a run's files are counted this often at most."""


@dataclass(eq=False)
class Watchdog:
    """Checks a run against its limits."""

    limits: RunLimits
    process: int
    """The child that was started."""
    tree: Path
    """The directory to which it writes, on the volume to watch."""
    is_new_tree: bool = True
    """False if files of the tree are changed in place. A partly changed file is not counted as written whole."""
    machine_dir: Path | None = None
    clock: Clock = SYSTEM_CLOCK
    spooled_bytes: Callable[[], int] = lambda: 0
    """Returns the size of this process's change logs on the volume while the run goes on."""
    written_bytes: int = 0
    """The bytes that the run has written so far, as far as known."""
    exceeds_space: bool = False
    """True if the violation is about space and not about time or memory."""

    def __post_init__(self) -> None:
        self._begin_monotonic = self._counted = self.clock.monotonic_seconds()
        self._begin = self.clock.now().timestamp()
        self._reference = self._before = free_space(self.tree)

    def violation(self) -> str | None:
        """Return the limit that the run exceeds, as a sentence. None if it keeps within all limits."""
        limits = self.limits
        seconds = self.clock.monotonic_seconds() - self._begin_monotonic
        if limits.seconds is not None and seconds > limits.seconds:
            return f"it ran longer than {limits.seconds:g} s (max_run_seconds)"
        memory = self.measure()
        if limits.memory_bytes is not None and memory > limits.memory_bytes:
            return f"it used more than {limits.memory_bytes} bytes of memory (max_run_memory_bytes)"
        violation = self._space_violation()
        self.exceeds_space = violation is not None
        return violation

    def measure(self) -> int:
        """Count the bytes written so far, also by a child that ended and was not reaped. Return its memory in bytes."""
        written, memory = usage(self.process)
        self.written_bytes = max(self.written_bytes, written)
        return memory

    def total_written_bytes(self, reported_bytes: int) -> int:
        """Return the bytes that the run used in the end, rather too many than too few.

        The space that the volume lost meanwhile counts if it is more, with the writes of other runs. Some file systems
        report no bytes. Where neither is known, what rsync reports counts: bubblewrap may end before the kernel has
        added the bytes of its children to its own, and others may have freed as much of the volume.
        """
        lost = self._before.available_bytes - free_space(self.tree).available_bytes
        return max(self.written_bytes, lost, 0) or reported_bytes

    def _space_violation(self) -> str | None:
        now = free_space(self.tree)
        reserve = self.limits.reserve_percent
        if now.free_percent < reserve:
            return reserve_violation(now.free_percent, reserve)
        return self._bytes_violation() or self._count_violation(now)

    def _bytes_violation(self) -> str | None:
        limit = self.limits.bytes
        written = self.written_bytes
        if self.limits.shares_bytes and self.machine_dir is not None:
            written = RUNS.written_bytes(self.machine_dir) - self.limits.counted_bytes
        if limit is not None and written + self.spooled_bytes() > limit:
            return f"it wrote more than {limit} bytes ({self.limits.bytes_reason})"
        return None

    def _count_violation(self, now: VolumeSpace) -> str | None:
        limits = self.limits
        alarm = limits.bytes is not None and self._reference.available_bytes - now.available_bytes > limits.bytes
        if limits.files is not None and not alarm:
            if self._reference.free_inodes is not None and now.free_inodes is not None:
                alarm = self._reference.free_inodes - now.free_inodes > limits.files
            else:
                alarm = self.clock.monotonic_seconds() - self._counted > _NO_INODES_CHECK_SECONDS
        if not alarm:
            return None
        # All runs change the volume's free space, so only the entries that this run made count.
        new_files, new_bytes = _made_since(self.tree, self._begin)
        if self.is_new_tree:
            self.written_bytes = max(self.written_bytes, new_bytes)
        self._reference = now
        self._counted = self.clock.monotonic_seconds()
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
        watchdog.measure()
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
