"""Shows what a storage says on the terminal, as much of it as a well-meaning storage would say (threats S4)."""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque

_LINE_LIMIT_CHARACTERS = 2000
_LIMIT_CHARACTERS = 4 * 1024 * 1024
_LINE_CHARACTERS = 40
"""What a line counts for beside its text: what is held back takes memory by the line, too."""
_REMEMBERED_LINES = 200
_LOG = logging.getLogger(__name__)


class Relay:
    """Passes lines on to standard error as they are: they carry the storage's time and name. Usable from any thread."""

    def __init__(
        self,
        storage_name: str,
        *,
        held_until_released: bool = False,
        awaited: str | None = None,
        limit_characters: int = _LIMIT_CHARACTERS,
    ) -> None:
        self._storage_name = storage_name
        self._awaited = awaited
        self._left = limit_characters
        self._held: list[str] | None = [] if held_until_released else None
        self._lock = threading.Lock()
        self._has_hinted = False
        self._shown: deque[str] = deque(maxlen=_REMEMBERED_LINES)
        self.heard = threading.Event()
        """Set when a line had ``awaited`` in it."""

    def line(self, text: str) -> None:
        """Show a line, unless the storage has said too much already; ``text`` is printable."""
        with self._lock:
            if self._awaited is not None and self._awaited in text:
                self.heard.set()
            if self._left <= 0:
                return
            text = text[:_LINE_LIMIT_CHARACTERS]
            self._left -= len(text) + _LINE_CHARACTERS
            if self._left <= 0:
                text = f"storage {self._storage_name} says more than is shown here"
            if self._held is None:
                self._show(text)
            else:
                self._held.append(text)

    def printed(self, text: str, hint: str) -> None:
        """Show a line of standard output: a storage says what it says on standard error. ``hint`` says once why."""
        self.line(text)
        if text.strip() and self._awaited is None and not self._has_hinted:
            self._has_hinted = True
            _LOG.warning("storage %s printed %r: %s", self._storage_name, text[:200], hint)

    def show_held(self) -> None:
        """Show what was held back, and hold back what comes."""
        with self._lock:
            self._show_held()

    def release(self) -> None:
        """Show what was held back, and hold back nothing from here on."""
        with self._lock:
            self._show_held()
            self._held = None

    def has_shown(self, text: str) -> bool:
        """Whether this line was shown a short while ago: evidence that need not be told again."""
        with self._lock:
            return text[:_LINE_LIMIT_CHARACTERS] in self._shown

    def _show_held(self) -> None:
        if self._held is not None:
            for text in self._held:
                self._show(text)
            self._held = []

    def _show(self, text: str) -> None:
        self._shown.append(text)
        try:
            print(text, file=sys.stderr, flush=True)  # noqa: T201
        except OSError:
            # Nobody reads any more (a closed terminal); the backup itself goes on.
            pass
