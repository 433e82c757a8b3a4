"""Time, processor time and memory of an action and of all the processes that it has, while it goes on."""

import ctypes
import functools
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench import processor_time

_INTERVAL_SECONDS = 0.5
_PR_SET_CHILD_SUBREAPER = 36
_TICKS = os.sysconf("SC_CLK_TCK")
ITSELF = "itself"
"""The part of all processes that are below none of the named ones."""


@dataclass(frozen=True)
class Measurement:
    """The cost of an action."""

    seconds: float
    processor_seconds: float
    others_share: float
    """The part of the machine's processors that others had meanwhile."""
    peak_bytes: dict[str, int]
    """For each part, the most memory that its processes had at a moment, shared pages divided among who shares them."""
    program_seconds: dict[str, float] = field(default_factory=dict)
    """Processor time by part and program, to the half second."""
    program_bytes: dict[str, int] = field(default_factory=dict)
    """The most memory by part and program, each at its own moment."""


def measure(action: Callable[[], object], parts: Mapping[str, int]) -> Measurement:
    """Return the cost of ``action``. ``parts`` are processes that run already and serve it, by name.

    Everything written before is on the disk before it begins, so that nobody pays for the writes of others.
    """
    _adopt_orphans()
    os.sync()
    watch = _Watch(parts)
    own_before, all_before = _own_seconds(), processor_time.of_everybody()
    with watch:
        begun = time.perf_counter()
        action()
        seconds = time.perf_counter() - begun
    own = _own_seconds() - own_before
    # The watch itself is ours too, and a helper of nobody's.
    everybody = processor_time.of_everybody() - all_before
    others = max(0.0, everybody - own - watch.own_seconds) / (seconds * (os.cpu_count() or 1))
    return Measurement(
        seconds, own, min(others, 1.0), dict(watch.peaks), watch.program_seconds(), dict(watch.program_peaks)
    )


@functools.cache
def _adopt_orphans() -> None:
    # bubblewrap ends before the process that it watches is waited for. Its time would be nobody's.
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("PR_SET_CHILD_SUBREAPER")


def _own_seconds() -> float:
    """Return the processor seconds of our descendants so far, whether they have ended or not, without ourselves."""
    user, system, *_ = os.times()
    return processor_time.seconds(processor_time.with_descendants(os.getpid())) - user - system


class _Watch:
    """Looks at our descendants twice a second."""

    def __init__(self, parts: Mapping[str, int]) -> None:
        self._names = {pid: name for name, pid in parts.items()}
        self.peaks: dict[str, int] = defaultdict(int)
        self.program_peaks: dict[str, int] = defaultdict(int)
        self.own_seconds = 0.0
        self._part_of: dict[int, str] = {}
        self._ticks: dict[tuple[str, str, int], int] = {}
        self._ticks_before: dict[tuple[str, str, int], int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._sample()
        self._ticks_before = dict(self._ticks)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def program_seconds(self) -> dict[str, float]:
        """Processor time by part and program, as far as it was seen."""
        found: dict[str, float] = defaultdict(float)
        for key, ticks in self._ticks.items():
            part, program, _pid = key
            found[f"{part}: {program}"] += (ticks - self._ticks_before.get(key, 0)) / _TICKS
        return {name: round(seconds, 2) for name, seconds in sorted(found.items()) if seconds >= 0.1}

    def _run(self) -> None:
        begun = time.thread_time()
        while not self._ended.wait(_INTERVAL_SECONDS):
            self._sample()
        self.own_seconds = time.thread_time() - begun

    def _sample(self) -> None:
        sums: dict[str, int] = defaultdict(int)
        program_sums: dict[str, int] = defaultdict(int)
        for pid, part_now in self._processes(os.getpid(), ITSELF):
            # Whose parent ended is ours now, and is still of the part that it was.
            part = self._part_of.setdefault(pid, part_now)
            try:
                content = Path(f"/proc/{pid}/stat").read_text(errors="replace")
                size = _proportional_bytes(pid)
            except OSError:
                continue
            program = content[content.index("(") + 1 : content.rindex(")")]
            sums[part] += size
            program_sums[f"{part}: {program}"] += size
            user, system = content.rpartition(")")[2].split()[11:13]
            self._ticks[part, program, pid] = int(user) + int(system)
        for part, size in sums.items():
            self.peaks[part] = max(self.peaks[part], size)
        for program, size in program_sums.items():
            self.program_peaks[program] = max(self.program_peaks[program], size)

    def _processes(self, pid: int, part: str) -> list[tuple[int, str]]:
        found = []
        for child in _children(pid):
            name = self._names.get(child, part)
            found += [(child, name), *self._processes(child, name)]
        return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except OSError:
        # It ended meanwhile.
        pass
    return found


def _proportional_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
