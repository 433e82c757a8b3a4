"""The files that a run could not bring, and the properties that could not be set, by what rsync says of each.

A machine's rsync says what it likes: whom it costs anything is its own machine. What is listed is bounded, the rest is
counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from turku.storage.rsync import messages
from turku.storage.rsync.messages import Kind, Message, Side

PATHS_LIMIT = 10_000
SENTENCES_LIMIT = 50
"""Sentences about what is no entry that is missing."""
PROTECTED_LIMIT = 500
"""Paths whose rules a command line holds easily."""
_OF_THE_STORAGE = frozenset({Kind.WRITE, Kind.DIRECTORY, Kind.SYMLINK, Kind.DELETION})
"""What fails on the storage for want of space, as for much else, is no fault of a single file."""
_HIDES_WHAT_IS_BELOW = frozenset(
    {Kind.UNREADABLE_DIRECTORY, Kind.UNREADABLE_ENTRY, Kind.NAME_TOO_LONG, Kind.CONTENTS_SKIPPED}
)
_UNNAMED = frozenset({Kind.DELETION_SKIPPED, Kind.CONTENTS_SKIPPED, Kind.RETRIED, Kind.VANISHED})
"""Kinds that say nothing of an entry that should be in the snapshot."""


@dataclass
class Mishaps:
    """What rsync said of single entries in one run, or in several of one backup."""

    entries: dict[bytes, Message] = field(default_factory=dict)
    """By path, those that did not come, or not as they are now."""
    vanished: set[bytes] = field(default_factory=set)
    is_said: bool = False
    """True where rsync said anything of single entries."""
    sentences: list[str] = field(default_factory=list)
    """About properties that could not be set."""
    sentence_count: int = 0
    """All of these."""
    is_of_storage: bool = False
    """True where the storage could not write."""
    unnamed: int = 0
    """Entries that did not come, and whose paths are not known."""

    def take(self, line: str | bytes, *, directory: bytes | None = None) -> Message | None:
        """Take note of a line that rsync printed; return what it says, None where it is about no single entry."""
        message = messages.parse(line, directory=directory)
        if message is None:
            return None
        if message.path is not None and (message.path in self.entries or message.path in self.vanished):
            # Said again by another rsync of the same backup.
            return message
        self.is_said = True
        if message.kind in _OF_THE_STORAGE and message.side is not Side.SENDER:
            self.is_of_storage = True
        elif message.kind is Kind.VANISHED:
            if message.path is not None and len(self.vanished) < PATHS_LIMIT:
                self.vanished.add(message.path)
        elif message.kind.is_missing_entry and message.kind is not Kind.NOT_REGULAR:
            self._miss(message)
        elif message.kind not in _UNNAMED:
            self.sentence_count += 1
            if len(self.sentences) < SENTENCES_LIMIT:
                self.sentences.append(sentence(message))
        return message

    def _miss(self, message: Message) -> None:
        if message.path is not None and message.path != b"." and len(self.entries) < PATHS_LIMIT:
            self.entries[message.path] = message
        elif message.kind not in _UNNAMED:
            self.unnamed += 1

    def add(self, other: Mishaps) -> None:
        """Take over what another run of the same backup said."""
        self.entries.update(other.entries)
        self.vanished |= other.vanished
        self.is_said = self.is_said or other.is_said
        told = [each for each in other.sentences if each not in self.sentences]
        self.sentence_count += max(other.sentence_count - (len(other.sentences) - len(told)), 0)
        self.sentences = (self.sentences + told)[:SENTENCES_LIMIT]
        self.is_of_storage = self.is_of_storage or other.is_of_storage
        self.unnamed += other.unnamed

    @property
    def hidden_paths(self) -> tuple[bytes, ...]:
        """The paths below which the machine's rsync could see nothing, so that nothing there is known to be deleted."""
        return tuple(path for path, message in self.entries.items() if message.kind in _HIDES_WHAT_IS_BELOW)

    @property
    def can_be_protected(self) -> bool:
        """True where rules can keep rsync from deleting what lies where it could see nothing."""
        return len(self.hidden_paths) <= PROTECTED_LIMIT and not self.unnamed

    def note(self, told: str) -> None:
        """Take note of a sentence of ours."""
        if told not in self.sentences:
            self.sentence_count += 1
            self.sentences.insert(0, told)

    @property
    def is_told(self) -> bool:
        """True where rsync said what it is about: single entries, and no want of the storage's."""
        return self.is_said and not self.is_of_storage


def sentence(message: Message) -> str:
    """Return the message for people: path, kind and reason."""
    reason = f" ({message.reason})" if message.reason else ""
    return f"{message.shown_path or 'an entry'}: {message.kind}{reason}"
