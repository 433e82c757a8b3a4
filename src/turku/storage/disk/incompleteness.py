"""The record of files that a snapshot lacks, or has in an older state, because they could not be read."""

import os

import msgspec

ENTRIES_LIMIT = 200
ENTRIES_LIMIT_BYTES = 64 * 1024
"""Both limits are for entries that are named. All entries are counted."""
WARNINGS_LIMIT = 50


class LostEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entry of the source that could not be read."""

    path: str
    """The path relative to the source, decoded by ``os.fsdecode``, which keeps bytes that are not UTF-8."""
    reason: str
    """The reason in words for people."""
    files: int = 1
    """The number of files kept in their older state.

    It is 1 for a missing entry, as nobody knows what a directory contains.
    """
    last_good: str = ""
    """The time of the snapshot that last read it, in ISO 8601 with its zone. Empty if no snapshot has it."""

    @property
    def raw_path(self) -> bytes:
        return os.fsencode(self.path)

    @property
    def is_stale(self) -> bool:
        """Return True if the snapshot has the entry as an earlier snapshot had it."""
        return self.last_good != ""


class Incompleteness(msgspec.Struct, frozen=True, omit_defaults=True):
    """The part of the source that a snapshot does not have in its state at that time."""

    missing_files: int = 0
    """Entries that could not be read and are in no earlier snapshot either."""
    stale_files: int = 0
    """Files that could not be read, and are kept as an earlier snapshot had them."""
    entries: tuple[LostEntry, ...] = ()
    """The first of the missing and stale entries."""
    warning_count: int = 0
    """The number of warnings: properties of files that could not be kept, and other mishaps."""
    warnings: tuple[str, ...] = ()
    """The first of the warnings, a sentence each."""

    @property
    def files(self) -> int:
        return self.missing_files + self.stale_files

    def last_good(self, path: bytes) -> str:
        """Return the time when a stale entry was last read, or empty for any other path."""
        decoded = os.fsdecode(path)
        return next((each.last_good for each in self.entries if each.path == decoded), "")


COMPLETE = Incompleteness()


def bounded(entries: list[LostEntry]) -> tuple[LostEntry, ...]:
    """Return the entries that are named, within both limits."""
    kept: list[LostEntry] = []
    left_bytes = ENTRIES_LIMIT_BYTES
    for each in entries[:ENTRIES_LIMIT]:
        left_bytes -= len(each.path) + len(each.reason)
        if left_bytes < 0:
            break
        kept.append(each)
    return tuple(kept)
