"""Reading a contained child's output in a thread, and ending the child."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from turku.core import command
from turku.core.cancellation import Cancelled
from turku.core.line_reading import drained
from turku.errors import CommandFailed
from turku.storage.containment.processes import descendants

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
