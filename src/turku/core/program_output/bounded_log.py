"""Bounded logging of messages that may come by the thousand: the first are logged, all others are counted by kind."""

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
    """Return the text without its quoted parts, so that messages about many files are of one kind."""
    return _QUOTED.sub('"..."', text)[:_KIND_LIMIT]


class MessageCounter:
    """A counter that decides which messages are shown. Usable from any thread."""

    def __init__(self, *, shown: int = SHOWN) -> None:
        self._left = shown
        self._lock = threading.Lock()
        self._kinds: Counter[str] = Counter()

    def take(self, kind: str) -> tuple[bool, bool]:
        """Count a message. Return whether it is shown, and whether it is the first of its kind that is not shown."""
        with self._lock:
            self._left -= 1
            if self._left >= 0:
                return True, False
            self._kinds[kind if kind in self._kinds or len(self._kinds) < _KINDS else _OTHER] += 1
            return False, self._left == -1

    def summary(self) -> str:
        """Return how many messages of each kind were not shown, and reset the counter. Empty if there were none."""
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
    """Yield a function that logs the first messages. At the end of the block, log a count of all others by kind.

    ``prefix`` stands before each message. Messages that are not shown are logged at debug level.
    """
    counted = MessageCounter(shown=shown)

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
