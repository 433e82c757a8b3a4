"""How much one run and one machine may take of a storage: time, bytes, files, memory, quota, and the volume's reserve.

Accuracy. A run is looked at twice a second, so it may pass a limit by what it writes in that time. Bytes are those
that the kernel counts as written by the run's own processes; where a file system does not report them (tmpfs), and for
files on every one, the volume's figures raise the alarm (other runs may raise it too) and what this run made in its
tree is then counted, so that no run is ended for what another did; in a tree that rsync changes in place, files alone
are. A machine's quota counts disk blocks of all its
snapshots, each hard-linked file once: what runs wrote is added up, what pruning frees is found by measuring again when
the sum comes near the quota.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from turku.core import durable
from turku.core.cancellation import NEVER, Cancellation
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.command import Child
from turku.core.filesystem.directory_tree import DirectoryTree
from turku.errors import BackupFailed
from turku.storage.fs import disk_usage
from turku.storage.fs import tree as fs

if TYPE_CHECKING:
    from turku.storage.config.configuration import StorageConfig

_LOOK_SECONDS: Final = 0.5
_NO_INODES_LOOK_SECONDS: Final = 60.0
"""btrfs and others count no inodes: a run's files are counted this often at most."""
END_SHARE_OF_LOW_WATER: Final = 0.5
"""New runs wait below the low-water mark; a running one is ended below this share of it."""
_NEAR_QUOTA: Final = 0.9
_MEASURE_AGAIN_SECONDS: Final = 6 * 3600.0
DIRECTORY_BYTES = 4096
"""What a directory takes, on the file systems that we know."""
_LOG = logging.getLogger(__name__)


class SpaceLimitExceeded(BackupFailed):
    """A run was ended for what it wrote: space is to be given back before others need it."""


@dataclass(frozen=True)
class RunLimits:
    """What one run may use; None is no limit."""

    seconds: float | None = None
    bytes: int | None = None
    bytes_reason: str = "max_run_bytes"
    shares_bytes: bool = False
    """Whether the machine's runs beside this one, of this process, take of the same bytes."""
    counted_bytes: int = 0
    """What runs of this process had written for the machine when the bounds were set."""
    files: int | None = None
    memory_bytes: int | None = None
    reserve_percent: float = 0.0
    """A run is ended when its volume has less free than this, in space or in inodes."""

    def remaining(self, seconds: float, taken_bytes: int) -> RunLimits:
        """Return what is left after a part of a run. Raises TookTooMuch where nothing more may be written."""
        if self.bytes is not None and taken_bytes >= self.bytes:
            raise SpaceLimitExceeded(
                f"the run was ended: it wrote more than {self.bytes} bytes ({self.bytes_reason})",
                hint="raise the limit if this was meant to be",
            )
        return replace(
            self,
            # The rest of the run is ended at its first look where nothing is left of its time.
            seconds=None if self.seconds is None else max(self.seconds - seconds, 0.0),
            bytes=None if self.bytes is None else self.bytes - taken_bytes,
        )


@dataclass(frozen=True)
class VolumeSpace:
    """What users may fill of a volume (root's reserve left out); inodes are 0 where its file system counts none."""

    total_bytes: int
    free_bytes: int
    total_inodes: int
    free_inodes: int

    @property
    def free_percent(self) -> float:
        """The smaller of both shares, of space and of inodes, that is free to us."""
        shares = [100.0 * self.free_bytes / self.total_bytes if self.total_bytes else 0.0]
        if self.total_inodes:
            shares.append(100.0 * self.free_inodes / self.total_inodes)
        return min(shares)


def volume_space(path: Path) -> VolumeSpace:
    """What the volume that holds ``path`` has; BackupFailed when it cannot be asked."""
    try:
        figures = fs.volume_status(path)
    except OSError as error:
        raise BackupFailed(f"{path}: cannot ask for free space: {error.strerror or error}") from error
    return VolumeSpace(
        total_bytes=(figures.f_blocks - figures.f_bfree + figures.f_bavail) * figures.f_frsize,
        free_bytes=figures.f_bavail * figures.f_frsize,
        total_inodes=figures.f_files,
        free_inodes=figures.f_favail,
    )


# --- before a run


_LEAST_BYTES = 1024**2
_LEAST_INODES = 50
"""Both: what a run needs for its own notes, and somewhat more."""


class _Usage(msgspec.Struct):
    used_bytes: int
    measured_at: float


def bounds(configuration: StorageConfig, machine_dir: Path, *, clock: Clock = SYSTEM_CLOCK) -> RunLimits:
    """What a run for the machine whose directory this is may use.

    Raises BackupFailed when it must wait: its volume is below the low-water mark, or its quota is used up.
    """
    free = volume_space(machine_dir).free_percent
    low_water = configuration.low_water_free_percent
    if free < low_water:
        raise BackupFailed(
            f"not started: the volume has {free:.1f} % free, below the low-water mark of {low_water:g} %; "
            "what is there stays as it is",
            hint="make room or add a volume (low_water_free_pct sets the mark)",
        )
    limit, reason, shares = configuration.max_run_bytes, "max_run_bytes", False
    counted = _RUNS.finished_bytes(machine_dir)
    quota = configuration.machine_quota_bytes
    if quota is not None:
        used = _used_bytes(configuration, machine_dir, quota, clock)
        left = quota - used
        if left <= 0:
            raise BackupFailed(
                f"not started: the machine uses {used} bytes, its quota (machine_quota_bytes) is {quota}",
                hint="shorten its retention, exclude what is not needed, or raise the quota",
            )
        if limit is None or left < limit:
            limit, reason, shares = left, f"what its quota of {quota} (machine_quota_bytes) left", True
    return RunLimits(
        seconds=configuration.max_run_seconds,
        bytes=limit,
        bytes_reason=reason,
        shares_bytes=shares,
        counted_bytes=counted,
        files=configuration.max_run_files,
        memory_bytes=configuration.max_run_memory_bytes or _half_of_memory_bytes(),
        reserve_percent=low_water * END_SHARE_OF_LOW_WATER,
    )


def is_full(machine_dir: Path) -> bool:
    """Return True where next to nothing fits on the machine's volume any more, whatever its low-water mark is."""
    left = volume_space(machine_dir)
    return left.free_bytes < _LEAST_BYTES or (left.total_inodes > 0 and left.free_inodes < _LEAST_INODES)


def is_below_low_water(configuration: StorageConfig, machine_dir: Path) -> bool:
    """Whether the machine's volume is below the low-water mark."""
    return volume_space(machine_dir).free_percent < configuration.low_water_free_percent


def lacks_space(configuration: StorageConfig, machine_dir: Path) -> bool:
    """Return True where a run must not keep what it has brought so far: the volume has no room for it."""
    return is_full(machine_dir) or is_below_low_water(configuration, machine_dir)


def record(configuration: StorageConfig, machine_dir: Path, written_bytes: int) -> None:
    """Add what a run wrote to the machine's use; nothing where there is no quota."""
    if configuration.machine_quota_bytes is None:
        return
    path = _usage_path(configuration, machine_dir)
    # Sources of a machine are backed up side by side.
    with _USAGE_LOCK:
        usage = _read_usage(path)
        if usage is not None:
            usage.used_bytes += written_bytes
            _write_usage(path, usage)


def _used_bytes(configuration: StorageConfig, machine_dir: Path, quota: int, clock: Clock) -> int:
    path = _usage_path(configuration, machine_dir)
    with _USAGE_LOCK:
        usage = _read_usage(path)
        now = clock.now().timestamp()
        # The sum only grows, so it never lies below the truth: it is measured anew only when that could matter.
        near = usage is not None and usage.used_bytes >= _NEAR_QUOTA * quota
        if usage is None or (near and not 0 <= now - usage.measured_at < _MEASURE_AGAIN_SECONDS):
            _LOG.info("measuring the disk space of %s", machine_dir)
            usage = _Usage(used_bytes=disk_usage.measured_bytes(machine_dir), measured_at=now)
            _write_usage(path, usage)
        return usage.used_bytes


def _usage_path(configuration: StorageConfig, machine_dir: Path) -> Path:
    return configuration.var_dir / "usage" / f"{machine_dir.name}.json"


def _read_usage(path: Path) -> _Usage | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Usage)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _write_usage(path: Path, usage: _Usage) -> None:
    durable.make_private_directory(path.parent)
    durable.write_json(path, msgspec.to_builtins(usage))


def _half_of_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


# --- during a run


class _Runs:
    """What this process's runs wrote for each machine: sources are backed up side by side, and share a quota."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._finished: Counter[Path] = Counter()
        self._running: dict[Path, list[Watchdog]] = defaultdict(list)

    def finished_bytes(self, machine_dir: Path) -> int:
        return self._finished[machine_dir]

    def written_bytes(self, machine_dir: Path) -> int:
        with self._lock:
            return self._finished[machine_dir] + sum(each.written_bytes for each in self._running[machine_dir])

    @contextmanager
    def counting(self, machine_dir: Path, watch: Watchdog) -> Iterator[None]:
        with self._lock:
            self._running[machine_dir].append(watch)
        try:
            yield
        finally:
            with self._lock:
                self._running[machine_dir].remove(watch)
                self._finished[machine_dir] += watch.written_bytes


_RUNS = _Runs()
_USAGE_LOCK = threading.Lock()


class Watchdog:
    """Looks at a run and says when it is over its bounds.

    ``process`` is the child that was started; ``tree`` is where it writes, on the volume to be watched. In a tree that
    is not new, a file that changed in a part of it is not taken to have been written whole.
    """

    def __init__(
        self,
        bounds: RunLimits,
        *,
        process: int,
        tree: Path,
        is_new_tree: bool = True,
        machine_dir: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
        spooled_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        """``spooled_bytes`` is what this process keeps on the volume of what rsync says, while the run goes on."""
        self._spooled_bytes = spooled_bytes
        self._bounds = bounds
        self._machine_dir = machine_dir
        self._is_new_tree = is_new_tree
        self._process = process
        self._tree = tree
        self._clock = clock
        self._begin_monotonic = clock.monotonic_seconds()
        self._begin = clock.now().timestamp()
        self._base = self._before = volume_space(tree)
        self._counted = self._begin_monotonic
        self.written_bytes = 0
        """What the run has written so far, as far as is known."""
        self.took_too_much = False
        """Whether the fault is about space, and not about time or memory."""

    def violation(self) -> str | None:
        """Which bound the run has passed, as a sentence; None while it keeps within all."""
        limits = self._bounds
        seconds = self._clock.monotonic_seconds() - self._begin_monotonic
        if limits.seconds is not None and seconds > limits.seconds:
            return f"it ran longer than {limits.seconds:g} s (max_run_seconds)"
        written, memory = _process_figures(self._process)
        self.written_bytes = max(self.written_bytes, written)
        if limits.memory_bytes is not None and memory > limits.memory_bytes:
            return f"it used more than {limits.memory_bytes} bytes of memory (max_run_memory_bytes)"
        fault = self._space_fault()
        self.took_too_much = fault is not None
        return fault

    def taken_bytes(self) -> int:
        """What the run has taken at its end, rather too much than too little.

        A short run may end before it is looked at: what the volume lost meanwhile is then held against it.
        """
        return max(self.written_bytes, self._before.free_bytes - volume_space(self._tree).free_bytes)

    def _space_fault(self) -> str | None:
        now = volume_space(self._tree)
        reserve = self._bounds.reserve_percent
        if now.free_percent < reserve:
            return _reserve_fault(now.free_percent, reserve)
        return self._bytes_fault() or self._count_fault(now)

    def _bytes_fault(self) -> str | None:
        limit = self._bounds.bytes
        written = self.written_bytes
        if self._bounds.shares_bytes and self._machine_dir is not None:
            written = _RUNS.written_bytes(self._machine_dir) - self._bounds.counted_bytes
        if limit is not None and written + self._spooled_bytes() > limit:
            return f"it wrote more than {limit} bytes ({self._bounds.bytes_reason})"
        return None

    def _count_fault(self, now: VolumeSpace) -> str | None:
        limits = self._bounds
        alarm = limits.bytes is not None and self._base.free_bytes - now.free_bytes > limits.bytes
        if limits.files is not None and not alarm:
            if now.total_inodes:
                alarm = self._base.free_inodes - now.free_inodes > limits.files
            else:
                alarm = self._clock.monotonic_seconds() - self._counted > _NO_INODES_LOOK_SECONDS
        if not alarm:
            return None
        # The volume's figures are everybody's: what counts is what this run made.
        new_files, new_bytes = _made_since(self._tree, self._begin)
        if self._is_new_tree:
            self.written_bytes = max(self.written_bytes, new_bytes)
        self._base = now
        self._counted = self._clock.monotonic_seconds()
        if limits.files is not None and new_files > limits.files:
            return f"it made more than {limits.files} files (max_run_files)"
        return self._bytes_fault()


@contextmanager
def counting(machine_dir: Path, watch: Watchdog) -> Iterator[None]:
    """Let the run count, for the length of the block, where runs of the machine beside it share its bytes."""
    with _RUNS.counting(machine_dir, watch):
        yield


def wait(child: Child, watch: Watchdog, cancellation: Cancellation = NEVER) -> int:
    """The exit code of the child.

    Raises BackupFailed when the run passes one of its bounds, TookTooMuch when that is one of space, and what
    ``cancellation`` raises; the child then still runs.
    """
    descriptor = os.pidfd_open(child.pid)
    try:
        while descriptor not in select.select([descriptor, cancellation.descriptor], [], [], _LOOK_SECONDS)[0]:
            cancellation.check()
            fault = watch.violation()
            if fault is not None:
                kind = SpaceLimitExceeded if watch.took_too_much else BackupFailed
                raise kind(f"the run was ended: {fault}", hint="raise the limit if this was meant to be")
    finally:
        os.close(descriptor)
    return child.wait(_LOOK_SECONDS)


def check_directories(bounds: RunLimits, tree: Path, count: int) -> None:
    """Let our own code make ``count`` directories below ``tree``: a copy by hard links has nothing else of its own.

    Raises TookTooMuch where they are more than a run may make, or leave too little of the volume.
    """
    free = volume_space(tree).free_percent
    if bounds.files is not None and count > bounds.files:
        fault = f"its copy of the newest snapshot has more than {bounds.files} directories (max_run_files)"
    elif bounds.bytes is not None and count * DIRECTORY_BYTES > bounds.bytes:
        fault = f"its copy of the newest snapshot takes more than {bounds.bytes} bytes ({bounds.bytes_reason})"
    elif free < bounds.reserve_percent:
        fault = _reserve_fault(free, bounds.reserve_percent)
    else:
        return
    raise SpaceLimitExceeded(f"the run was ended: {fault}", hint="raise the limit if this was meant to be")


def _reserve_fault(free_percent: float, reserve_percent: float) -> str:
    return f"its volume has only {free_percent:.1f} % free (low_water_free_pct: ended below {reserve_percent:g} %)"


def _process_figures(process: int) -> tuple[int, int]:
    """Bytes written to disks, and resident memory in bytes, of a process and its descendants, reaped ones included."""
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
    """The processes that it and its children started, as far as they run."""
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


def _made_since(tree: Path, moment: float) -> tuple[int, int]:
    files = size_bytes = 0
    with suppress(OSError), DirectoryTree(tree) as opened:
        for each in opened.walk():
            status = each.status
            # The change time cannot be set by the receiver. A file with more links is one of an earlier snapshot.
            if status.st_ctime >= moment - 1 and (status.st_nlink == 1 or each.is_directory):
                files += 1
                size_bytes += status.st_blocks * disk_usage.BLOCK_BYTES
    return files, size_bytes
