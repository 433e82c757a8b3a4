"""Messages that may come by the thousand, as one for each file: the first are logged, all others counted by kind."""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHOWN = 20
_KINDS = 30
_KIND_LIMIT = 120
_OTHER = "of other kinds"
_QUOTED = re.compile(r'".*"')


def kind_of(text: str) -> str:
    """Return the text without what it quotes, by which messages about many files are one kind."""
    return _QUOTED.sub('"..."', text)[:_KIND_LIMIT]


class Counted:
    """Decides which messages are shown, and counts the others. Usable from any thread."""

    def __init__(self, *, shown: int = SHOWN) -> None:
        self._left = shown
        self._lock = threading.Lock()
        self._kinds: Counter[str] = Counter()

    def take(self, kind: str) -> tuple[bool, bool]:
        """Return True where a message of this kind is shown, and True where it is the first that is not."""
        with self._lock:
            self._left -= 1
            if self._left >= 0:
                return True, False
            self._kinds[kind if kind in self._kinds or len(self._kinds) < _KINDS else _OTHER] += 1
            return False, self._left == -1

    def summary(self) -> str:
        """Return how many were not shown, by kind, and begin to count anew; empty where there were none."""
        with self._lock:
            kinds, self._kinds = self._kinds, Counter()
        if not kinds:
            return ""
        counts = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common())
        return f"{kinds.total()} more messages are not shown: {counts}"


@contextmanager
def bounded_log(
    logger: logging.Logger,
    prefix: str,
    *,
    level: int = logging.WARNING,
    kind: Callable[[str], str] = kind_of,
    shown: int = SHOWN,
) -> Iterator[Callable[[str], None]]:
    """Yield a function that logs the first messages; the block ends with a count of all others by their kind.

    ``prefix`` stands before each. Those that are not shown are logged for who debugs.
    """
    counted = Counted(shown=shown)

    def log(text: str) -> None:
        is_shown, is_first_hidden = counted.take(kind(text))
        if is_first_hidden:
            logger.log(level, "%s: more messages follow; they are counted and not shown", prefix)
        logger.log(level if is_shown else logging.DEBUG, "%s: %s", prefix, text)

    try:
        yield log
    finally:
        summary = counted.summary()
        if summary:
            logger.log(level, "%s: %s", prefix, summary)
