"""The processes below a contained child: their resource usage, the child's output, and its end."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from turku.core import command
from turku.core.cancellation import Cancelled
from turku.core.line_reading import drained
from turku.errors import CommandFailed


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
