"""The output of a storage, shown on the terminal up to the limits of an honest storage (threats S4)."""

import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from turku.agent.tunnel.ssh_messages import SshMessageFilter
from turku.core.cli.output import say_error
from turku.core.log import STANDARD_ERROR, is_journal
from turku.core.program_output.bounded_log import MessageCounter, kind_of

_LINE_LIMIT_CHARACTERS = 2000
_LIMIT_CHARACTERS = 4 * 1024 * 1024
_LINE_CHARACTERS = 40
"""The number of characters that a line counts beside its text, because lines that are held take memory too."""
_REMEMBERED_LINES = 200
_UNFORMATTED_LINES = 100
_LEVEL = re.compile(r"\A\[[^\]]*\] (?P<level>[A-Z]{4,8}): (?P<text>.*)")
"""The pattern of a line of a storage's log, with its time and name."""
_WARNING_LEVELS = ("WARNING", "ERROR", "CRITICAL")
_LOG = logging.getLogger(__name__)


class StorageOutput:
    """Writes the lines of a storage, which have its time and name, to standard error. Usable from any thread."""

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
        self._beyond = 0
        self._warnings = MessageCounter()
        # Messages of ssh, of a storage's login shell, or of rsync through a storage that forwards all of them.
        self._unformatted = MessageCounter(shown=_UNFORMATTED_LINES)
        self._held: list[str] | None = [] if held_until_released else None
        self._lock = threading.Lock()
        self._has_hinted = False
        self._shown: deque[str] = deque(maxlen=_REMEMBERED_LINES)
        self._ssh_messages = SshMessageFilter()
        self._calls: dict[str, Callable[[], None]] = {}
        self.has_awaited = threading.Event()
        """Set when a line contained ``awaited``."""

    def call_on(self, text: str, call: Callable[[], None]) -> None:
        """Call a function once in place of showing the next line that is exactly ``text``. A later call replaces it."""
        with self._lock:
            self._calls[text] = call

    def show_line(self, text: str) -> None:
        """Show a line of printable text, unless the storage has sent too many already."""
        with self._lock:
            if call := self._calls.pop(text, None):
                call()
                return
            if self._ssh_messages.is_replaced(text):
                return
            if self._awaited is not None and self._awaited in text:
                self.has_awaited.set()
            if self._left <= 0:
                self._beyond += 1
                return
            text = text[:_LINE_LIMIT_CHARACTERS]
            is_shown, is_first_hidden = self._counted(text)
            if is_first_hidden:
                self._take(f"storage {self._storage_name}: more messages follow; they are counted and not shown")
            if is_shown:
                self._take(text)

    @contextmanager
    def summarized(self) -> Iterator[None]:
        """Show at the end of the block how many lines were not shown."""
        try:
            yield
        finally:
            with self._lock:
                hidden = [self._warnings.summary(), self._unformatted.summary()]
                if self._beyond:
                    hidden.append(f"{self._beyond} more lines are not shown")
                    self._beyond = 0
                for text in filter(None, hidden):
                    self._put(f"storage {self._storage_name}: {text[:_LINE_LIMIT_CHARACTERS]}")

    def _counted(self, text: str) -> tuple[bool, bool]:
        """Return two flags: the line is shown, and it is the first line of its kind that is not shown."""
        match = _LEVEL.match(text)
        if match is None:
            return self._unformatted.take(kind_of(text))
        if match["level"] == "WARNING":
            return self._warnings.take(kind_of(match["text"]))
        return True, False

    def _take(self, text: str) -> None:
        self._left -= len(text) + _LINE_CHARACTERS
        if self._left <= 0:
            self._beyond += 1
            text = f"storage {self._storage_name} sends more output than is shown here"
        self._put(text)

    def _put(self, text: str) -> None:
        if self._held is None:
            self._show(text)
        else:
            self._held.append(text)

    def show_stdout_line(self, text: str, hint: str) -> None:
        """Show a line of standard output, which an honest storage does not use. ``hint`` explains it once."""
        self.show_line(text)
        if text.strip() and self._awaited is None and not self._has_hinted:
            self._has_hinted = True
            _LOG.warning("storage %s printed %r: %s", self._storage_name, text[:200], hint)

    def release(self, *, holds_next: bool = False) -> None:
        """Show the lines that were held. Hold none from here on, or with ``holds_next`` the next ones again.

        After a release without ``holds_next`` no line is held any more.
        """
        with self._lock:
            for text in self._held or ():
                self._show(text)
            self._held = [] if holds_next and self._held is not None else None

    def has_shown(self, text: str) -> bool:
        """Return True where this line was shown a short while ago, so that it need not be repeated."""
        with self._lock:
            return text[:_LINE_LIMIT_CHARACTERS] in self._shown

    def _show(self, text: str) -> None:
        self._shown.append(text)
        level = logging.INFO
        if is_journal(STANDARD_ERROR):
            text, level = self._for_journal(text)
        try:
            say_error(text, level=level)
        except OSError:
            # Nobody reads any more (a closed terminal). The backup itself goes on.
            pass

    def _for_journal(self, text: str) -> tuple[str, int]:
        """Return the line without the storage's time stamp, and its level.

        A storage may warn. It cannot make an entry of a higher priority, for which a machine's operators are woken.
        """
        match = _LEVEL.match(text)
        is_warning = match is not None and match["level"] in _WARNING_LEVELS
        said = text if match is None else match["text"]
        origin = f"storage {self._storage_name}: "
        return said if said.startswith(origin) else origin + said, logging.WARNING if is_warning else logging.INFO
