"""The files that a run could not transfer and the properties that could not be set, collected from rsync's messages.

A machine's rsync can print any message, at the cost of its own machine. Lists are bounded. The rest is counted.
"""

from dataclasses import dataclass, field

from turku.storage.rsync import messages
from turku.storage.rsync.messages import Message, MessageKind, Side

PATHS_LIMIT = 10_000
WARNINGS_LIMIT = 50
"""Warnings about anything but missing entries."""
PROTECTED_LIMIT = 500
"""The number of paths whose rules a command line holds easily."""
_STORAGE_FAILURES = frozenset({MessageKind.WRITE, MessageKind.DIRECTORY, MessageKind.SYMLINK, MessageKind.DELETION})
"""Failures on the storage, which have causes such as a full disk and not a single file."""
_HIDES_CONTENT = frozenset(
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
"""Kinds of messages that are about no entry that should be in the snapshot."""


@dataclass
class FileErrors:
    """The errors of single entries in one run, or in all runs of one backup."""

    entries: dict[bytes, Message] = field(default_factory=dict)
    """The entries that did not come, or not in their current state, by path."""
    vanished: set[bytes] = field(default_factory=set)
    any_reported: bool = False
    """True if rsync reported any single entry."""
    warnings: list[str] = field(default_factory=list)
    """Sentences, for instance about properties that could not be set."""
    warning_count: int = 0
    """The number of warnings, including those that ``warnings`` does not list."""
    storage_failed: bool = False
    """True if the storage could not write."""
    unnamed_count: int = 0
    """The number of entries that did not come and whose paths are unknown."""

    def parse_line(self, line: str | bytes, *, directory: bytes | None = None) -> Message | None:
        """Add the error in a line that rsync printed. Return its message, None if it is not about a single entry."""
        message = messages.parse(line, directory=directory)
        if message is None:
            return None
        if message.path is not None and (message.path in self.entries or message.path in self.vanished):
            # Another rsync of the same backup reported it before.
            return message
        self.any_reported = True
        if message.kind in _STORAGE_FAILURES and message.side is not Side.SENDER:
            self.storage_failed = True
        elif message.kind is MessageKind.VANISHED:
            if message.path is not None and len(self.vanished) < PATHS_LIMIT:
                self.vanished.add(message.path)
        elif message.kind.is_missing_entry and message.kind is not MessageKind.NOT_REGULAR:
            self._add_entry(message)
        elif message.kind not in _UNNAMED:
            self.warning_count += 1
            if len(self.warnings) < WARNINGS_LIMIT:
                reason = f" ({message.reason})" if message.reason else ""
                self.warnings.append(f"{message.shown_path or 'an entry'}: {message.kind}{reason}")
        return message

    def _add_entry(self, message: Message) -> None:
        if message.path is not None and message.path != b"." and len(self.entries) < PATHS_LIMIT:
            self.entries[message.path] = message
        elif message.kind not in _UNNAMED:
            self.unnamed_count += 1

    def add(self, other: "FileErrors") -> None:
        """Add the errors of another run of the same backup."""
        self.entries.update(other.entries)
        self.vanished |= other.vanished
        self.any_reported = self.any_reported or other.any_reported
        new = [each for each in other.warnings if each not in self.warnings]
        self.warning_count += max(other.warning_count - (len(other.warnings) - len(new)), 0)
        self.warnings = (self.warnings + new)[:WARNINGS_LIMIT]
        self.storage_failed = self.storage_failed or other.storage_failed
        self.unnamed_count += other.unnamed_count

    @property
    def hidden_paths(self) -> tuple[bytes, ...]:
        """The paths below which the machine's rsync could see nothing. Nothing there is known to be deleted."""
        return tuple(path for path, message in self.entries.items() if message.kind in _HIDES_CONTENT)

    @property
    def can_be_protected(self) -> bool:
        """True if filter rules can keep rsync from deleting entries below the hidden paths."""
        return len(self.hidden_paths) <= PROTECTED_LIMIT and not self.unnamed_count

    def add_warning(self, warning: str) -> None:
        """Add a warning of ours as the first one."""
        if warning not in self.warnings:
            self.warning_count += 1
            self.warnings.insert(0, warning)

    @property
    def names_every_error(self) -> bool:
        """True if the errors are about single entries only, and the storage could write."""
        return self.any_reported and not self.storage_failed
