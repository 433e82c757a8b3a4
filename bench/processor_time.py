"""Processor time that processes took: a figure that others who share the machine hardly change."""

import os
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def with_descendants(pid: int) -> list[int]:
    """The process and all that it started, and they."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(_fields(entry)[1])
        except OSError:
            # It ended meanwhile.
            continue
    found = [pid]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def seconds(pids: Iterable[int]) -> float:
    """Return the processor seconds of these processes so far, and of those of their children that ended."""
    ticks = 0
    for pid in pids:
        try:
            ticks += sum(int(field) for field in _fields(Path(f"/proc/{pid}/stat"))[11:15])
        except OSError:
            continue
    return ticks / _TICKS


def of_everybody() -> float:
    """Return the processor seconds of all processes of the machine since it started."""
    user, nice, system, _idle, _waiting, *others = (
        int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + sum(others[:3])) / _TICKS


def _fields(stat: Path) -> list[str]:
    # The second field is the program's name, which may hold spaces and brackets. The third is the first of these.
    return stat.read_text().rpartition(")")[2].split()
