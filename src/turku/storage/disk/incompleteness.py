"""The files that a snapshot lacks or has as they were before, because they could not be read when it was made."""

from __future__ import annotations

import os

import msgspec

ENTRIES_LIMIT = 200
ENTRIES_LIMIT_BYTES = 64 * 1024
"""Both: of entries that are named; all are counted."""
WARNINGS_LIMIT = 50


class LostEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entry of the source that could not be read."""

    path: str
    """Relative to the source, as Python decodes file names: bytes that are no UTF-8 are kept (``os.fsdecode``)."""
    reason: str
    """For people."""
    files: int = 1
    """Files that are there as they were before; 1 for one that is missing, as nobody knows what is in a directory."""
    last_good: str = ""
    """When the snapshot was made that last read it, in ISO 8601 with its zone; empty where none did: it is missing."""

    @property
    def raw_path(self) -> bytes:
        return os.fsencode(self.path)

    @property
    def is_stale(self) -> bool:
        """True where the snapshot has what an earlier one had."""
        return self.last_good != ""


class Incompleteness(msgspec.Struct, frozen=True, omit_defaults=True):
    """What of the source is not in a snapshot as it was when that was made."""

    missing_files: int = 0
    """Entries that could not be read, and are in no snapshot before either."""
    stale_files: int = 0
    """Files that could not be read, and are there as an earlier snapshot had them."""
    entries: tuple[LostEntry, ...] = ()
    """The first of both."""
    warning_count: int = 0
    """Properties of files that could not be kept, and other mishaps."""
    warnings: tuple[str, ...] = ()
    """The first of them, a sentence each."""

    @property
    def files(self) -> int:
        return self.missing_files + self.stale_files

    def last_good(self, path: bytes) -> str:
        """Return when the entry was last read, where this snapshot has it as it was before; empty for any other."""
        decoded = os.fsdecode(path)
        return next((each.last_good for each in self.entries if each.path == decoded), "")


COMPLETE = Incompleteness()


def bounded(entries: list[LostEntry]) -> tuple[LostEntry, ...]:
    """Return as many of the entries as are named."""
    kept: list[LostEntry] = []
    left_bytes = ENTRIES_LIMIT_BYTES
    for each in entries[:ENTRIES_LIMIT]:
        left_bytes -= len(each.path) + len(each.reason)
        if left_bytes < 0:
            break
        kept.append(each)
    return tuple(kept)
