"""The processes below a child, and their resource usage, as ``/proc`` shows them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


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
