"""Cancellation of long work by a token that the work checks where stopping does no harm."""

import os
import threading
import weakref
from typing import ClassVar, Final


class Cancelled(BaseException):
    """The work was cancelled. A BaseException, so that every ``finally`` runs and no handler swallows it."""


class Cancellation:
    """A token by which any number of threads learn that their work must end.

    Call ``check`` between two steps. Code that waits for a descriptor must also wait for ``descriptor``.
    """

    raised: ClassVar[type[Cancelled]] = Cancelled
    """The exception class that ``check`` and ``wait`` raise, with ``reason``."""
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
        """A descriptor that becomes readable with the cancellation. It belongs to this object. Do not read from it."""
        with self._lock:
            if self._descriptor is None:
                # Opened on demand, because nobody waits for most tokens, such as NEVER.
                self._descriptor = os.eventfd(int(self.is_cancelled), os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                weakref.finalize(self, os.close, self._descriptor)
            return self._descriptor

    def cancel(self) -> None:
        """Cancel the work of all who have this token. Further calls do nothing."""
        with self._lock:
            if not self.is_cancelled:
                self._cancelled.set()
                if self._descriptor is not None:
                    os.eventfd_write(self._descriptor, 1)

    def check(self) -> None:
        """Raise ``raised`` if the work was cancelled."""
        if self.is_cancelled:
            raise self.raised(self.reason)

    def wait(self, seconds: float | None) -> None:
        """Return after that time (None: never). Raise ``raised`` at the moment of the cancellation."""
        if self._cancelled.wait(seconds):
            raise self.raised(self.reason)


NEVER: Final = Cancellation()
"""The token for work that is never cancelled."""
