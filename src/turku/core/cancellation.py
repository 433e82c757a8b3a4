"""Ending work early: a token that is handed to whatever takes long, and is asked where ending does no harm."""

from __future__ import annotations

import os
import threading
import weakref
from typing import ClassVar, Final


class Cancelled(BaseException):
    """The work is not wanted any more; a BaseException so that every ``finally`` runs and no handler swallows it."""


class Cancellation:
    """Says once, to any number of threads, that their work is to end.

    ``check`` stands between two steps. Whatever waits for a descriptor waits for ``descriptor`` too.
    """

    raised: ClassVar[type[Cancelled]] = Cancelled
    """What ``check`` and ``wait`` raise, with ``reason``."""
    reason = "it is not wanted any more"

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._descriptor: int | None = None

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    @property
    def descriptor(self) -> int:
        """A descriptor that is readable from the cancellation on; it is this object's, and never to be read."""
        with self._lock:
            if self._descriptor is None:
                # Made when it is asked for: a token that nobody waits for, as NEVER in most programs, takes none.
                self._descriptor = os.eventfd(int(self.is_cancelled), os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                weakref.finalize(self, os.close, self._descriptor)
            return self._descriptor

    def cancel(self) -> None:
        """Let all that carries this token end; once is enough."""
        with self._lock:
            if not self.is_cancelled:
                self._cancelled.set()
                if self._descriptor is not None:
                    os.eventfd_write(self._descriptor, 1)

    def check(self) -> None:
        """Return while the work is wanted; raise ``raised`` from the cancellation on."""
        if self.is_cancelled:
            raise self.raised(self.reason)

    def wait(self, seconds: float | None) -> None:
        """Return after that time (None: never); raise ``raised`` at the moment of the cancellation."""
        if self._cancelled.wait(seconds):
            raise self.raised(self.reason)


NEVER: Final = Cancellation()
"""For work that nobody ends early; nobody cancels it."""
