"""What a restore could not bring back: counted, and named as far as somebody can read it."""

from __future__ import annotations

from turku.core.log import one_line

NAMED_LIMIT = 1000
_SHOWN_BYTES = 300
"""Of a path, which a storage chose."""


class ProblemList:
    """The problems of one restore; a storage decides how many they are, so not all of them are kept."""

    def __init__(self) -> None:
        self.named: list[str] = []
        """The first ``NAMED_LIMIT``, a sentence each."""
        self.count = 0

    def add(self, path: bytes, what: str) -> None:
        """Take note of what became of a path."""
        self.add_general(f"{one_line(path[:_SHOWN_BYTES])} {what}")

    def extend(self, others: ProblemList) -> None:
        """Take note of all of them too."""
        for sentence in others.named:
            self.add_general(sentence)
        self.add_uncounted_names(others.count - len(others.named))

    def add_uncounted_names(self, count: int) -> None:
        """Take note of problems that nobody names."""
        self.count += count

    def add_general(self, sentence: str) -> None:
        """Take note of a problem that is of no single path."""
        self.count += 1
        if len(self.named) < NAMED_LIMIT:
            self.named.append(sentence)
