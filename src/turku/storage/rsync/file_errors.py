"""The files that a run could not bring, and the properties that could not be set, by what rsync says of each.

A machine's rsync says what it likes: whom it costs anything is its own machine. What is listed is bounded, the rest is
counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from turku.storage.rsync import messages
from turku.storage.rsync.messages import Message, MessageKind, Side

PATHS_LIMIT = 10_000
SENTENCES_LIMIT = 50
"""Sentences about what is no entry that is missing."""
PROTECTED_LIMIT = 500
"""Paths whose rules a command line holds easily."""
_OF_THE_STORAGE = frozenset({MessageKind.WRITE, MessageKind.DIRECTORY, MessageKind.SYMLINK, MessageKind.DELETION})
"""What fails on the storage for want of space, as for much else, is no fault of a single file."""
_HIDES_WHAT_IS_BELOW = frozenset(
    {
        MessageKind.UNREADABLE_DIRECTORY,
        MessageKind.UNREADABLE_ENTRY,
        MessageKind.NAME_TOO_LONG,
        MessageKind.CONTENTS_SKIPPED,
    }
)
_UNNAMED = frozenset(
    {MessageKind.DELETION_SKIPPED, MessageKind.CONTENTS_SKIPPED, MessageKind.RETRIED, MessageKind.VANISHED}
)
"""Kinds that say nothing of an entry that should be in the snapshot."""


@dataclass
class FileErrors:
    """What rsync said of single entries in one run, or in several of one backup."""

    entries: dict[bytes, Message] = field(default_factory=dict)
    """By path, those that did not come, or not as they are now."""
    vanished: set[bytes] = field(default_factory=set)
    any_reported: bool = False
    """True where rsync said anything of single entries."""
    warnings: list[str] = field(default_factory=list)
    """About properties that could not be set."""
    warning_count: int = 0
    """All of these."""
    storage_failed: bool = False
    """True where the storage could not write."""
    unnamed_count: int = 0
    """Entries that did not come, and whose paths are not known."""

    def parse_line(self, line: str | bytes, *, directory: bytes | None = None) -> Message | None:
        """Take note of a line that rsync printed; return what it says, None where it is about no single entry."""
        message = messages.parse(line, directory=directory)
        if message is None:
            return None
        if message.path is not None and (message.path in self.entries or message.path in self.vanished):
            # Said again by another rsync of the same backup.
            return message
        self.any_reported = True
        if message.kind in _OF_THE_STORAGE and message.side is not Side.SENDER:
            self.storage_failed = True
        elif message.kind is MessageKind.VANISHED:
            if message.path is not None and len(self.vanished) < PATHS_LIMIT:
                self.vanished.add(message.path)
        elif message.kind.is_missing_entry and message.kind is not MessageKind.NOT_REGULAR:
            self._add_entry(message)
        elif message.kind not in _UNNAMED:
            self.warning_count += 1
            if len(self.warnings) < SENTENCES_LIMIT:
                self.warnings.append(describe(message))
        return message

    def _add_entry(self, message: Message) -> None:
        if message.path is not None and message.path != b"." and len(self.entries) < PATHS_LIMIT:
            self.entries[message.path] = message
        elif message.kind not in _UNNAMED:
            self.unnamed_count += 1

    def add(self, other: FileErrors) -> None:
        """Take over what another run of the same backup said."""
        self.entries.update(other.entries)
        self.vanished |= other.vanished
        self.any_reported = self.any_reported or other.any_reported
        told = [each for each in other.warnings if each not in self.warnings]
        self.warning_count += max(other.warning_count - (len(other.warnings) - len(told)), 0)
        self.warnings = (self.warnings + told)[:SENTENCES_LIMIT]
        self.storage_failed = self.storage_failed or other.storage_failed
        self.unnamed_count += other.unnamed_count

    @property
    def hidden_paths(self) -> tuple[bytes, ...]:
        """The paths below which the machine's rsync could see nothing, so that nothing there is known to be deleted."""
        return tuple(path for path, message in self.entries.items() if message.kind in _HIDES_WHAT_IS_BELOW)

    @property
    def can_be_protected(self) -> bool:
        """True where rules can keep rsync from deleting what lies where it could see nothing."""
        return len(self.hidden_paths) <= PROTECTED_LIMIT and not self.unnamed_count

    def add_warning(self, told: str) -> None:
        """Take note of a sentence of ours."""
        if told not in self.warnings:
            self.warning_count += 1
            self.warnings.insert(0, told)

    @property
    def names_every_error(self) -> bool:
        """True where rsync said what it is about: single entries, and no want of the storage's."""
        return self.any_reported and not self.storage_failed


def describe(message: Message) -> str:
    """Return the message for people: path, kind and reason."""
    reason = f" ({message.reason})" if message.reason else ""
    return f"{message.shown_path or 'an entry'}: {message.kind}{reason}"
