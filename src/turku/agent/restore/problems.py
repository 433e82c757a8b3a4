"""What a restore could not bring back: counted, and named as far as somebody can read it."""

from __future__ import annotations

from turku.core.log import one_line

NAMED_LIMIT = 1000
_SHOWN_BYTES = 300
"""Of a path, which a storage chose."""


class Problems:
    """The problems of one restore; a storage decides how many they are, so not all of them are kept."""

    def __init__(self) -> None:
        self.named: list[str] = []
        """The first ``NAMED_LIMIT``, a sentence each."""
        self.count = 0

    def add(self, path: bytes, what: str) -> None:
        """Take note of what became of a path."""
        self.say(f"{one_line(path[:_SHOWN_BYTES])} {what}")

    def extend(self, others: Problems) -> None:
        """Take note of all of them too."""
        for sentence in others.named:
            self.say(sentence)
        self.count_more(others.count - len(others.named))

    def count_more(self, count: int) -> None:
        """Take note of problems that nobody names."""
        self.count += count

    def say(self, sentence: str) -> None:
        """Take note of a problem that is of no single path."""
        self.count += 1
        if len(self.named) < NAMED_LIMIT:
            self.named.append(sentence)
