"""What the catalog says of a path: an entry is one version of it."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class EntryKind(StrEnum):
    """What lies at a path."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    FIFO = "fifo"
    SOCKET = "socket"
    BLOCK = "block"
    CHARACTER = "character"


NO_ATTRIBUTES = b""
"""Stands for the digest of what has neither extended attributes nor ACLs."""
KINDS = tuple(EntryKind)
"""The catalog's files hold a kind by its place in here: never change their order."""
FILE, DIRECTORY, LINK = (KINDS.index(kind) for kind in (EntryKind.FILE, EntryKind.DIRECTORY, EntryKind.LINK))
_BY_FORMAT = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: LINK,
    stat.S_IFIFO: KINDS.index(EntryKind.FIFO),
    stat.S_IFSOCK: KINDS.index(EntryKind.SOCKET),
    stat.S_IFBLK: KINDS.index(EntryKind.BLOCK),
    stat.S_IFCHR: KINDS.index(EntryKind.CHARACTER),
}


def kind_number(mode: int) -> int:
    """The number of the kind that a file's mode tells; that of a file for one which is not known."""
    return _BY_FORMAT.get(stat.S_IFMT(mode), FILE)


_LONGEST_TIME = 2**63 - 1
_EXACT_TIME_BYTES = 16


def stored_time(mtime_ns: int) -> int | bytes:
    """Return a time as the catalog's files hold it: a number of 64 bits, or 16 bytes where it does not fit.

    btrfs, tmpfs and xfs keep seconds of 64 bits, and ext4 goes to the year 2446.
    """
    if -_LONGEST_TIME <= mtime_ns < _LONGEST_TIME:
        return mtime_ns
    return mtime_ns.to_bytes(_EXACT_TIME_BYTES, "big", signed=True)


def time_of(stored: int | bytes) -> int:
    """Return the nanoseconds of a time from a catalog's file."""
    return int.from_bytes(stored, "big", signed=True) if isinstance(stored, bytes) else stored


def is_time(recorded_ns: int, found_ns: int) -> bool:
    """Return True when a file with this time has the recorded one.

    Catalogs of earlier releases have the nearest time that 64 bits of nanoseconds hold.
    """
    return recorded_ns in (found_ns, max(-_LONGEST_TIME - 1, min(found_ns, _LONGEST_TIME)))


class CatalogEntry(NamedTuple):
    """One version of a path, and the snapshots that have it."""

    path: bytes
    """Relative to the source."""
    kind: EntryKind
    size: int
    """Bytes of a file; 0 of anything else."""
    mode: int
    """Permissions, without the kind."""
    uid: int
    gid: int
    mtime_ns: int
    checksum: bytes | None
    """xxh128 of a file's content, 16 bytes; None where nobody has computed it yet."""
    link_target: bytes | None
    first: str
    """The oldest snapshot that has this version, of those that have it without a gap."""
    last: str
    """The newest of those."""
    version: int
    """Names this version to ``Catalog.set_checksums`` and ``Catalog.set_checked``; not for keeping."""
    checked: int = 0
    """When its content was last compared with the checksum, in Unix seconds; 0 for never."""
    attributes: bytes | None = None
    """Digest of the extended attributes and ACLs (``core.extended_attributes``), ``NO_ATTRIBUTES`` for none.

    None where nobody has looked at them yet."""

    @property
    def name(self) -> bytes:
        """The last part of the path."""
        return self.path.rpartition(b"/")[2]

    @property
    def content(self) -> tuple[object, ...]:
        """What makes two versions differ."""
        return (
            self.kind,
            self.size,
            self.mode,
            self.uid,
            self.gid,
            self.mtime_ns,
            self.checksum,
            self.link_target,
            self.attributes,
        )

    def may_be(self, other: CatalogEntry) -> bool:
        """Whether nothing that is known tells the two apart."""
        if self.checksum is not None and other.checksum is not None and self.checksum != other.checksum:
            return False
        if self.attributes is not None and other.attributes is not None and self.attributes != other.attributes:
            return False
        return (self.kind, self.size, self.mode, self.uid, self.gid, self.mtime_ns, self.link_target) == (
            other.kind,
            other.size,
            other.mode,
            other.uid,
            other.gid,
            other.mtime_ns,
            other.link_target,
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """A path that is not the same in two snapshots; None stands for where it is not."""

    before: CatalogEntry | None
    after: CatalogEntry | None

    @property
    def path(self) -> bytes:
        entry = self.after or self.before
        return b"" if entry is None else entry.path

    @property
    def kind(self) -> str:
        """``added``, ``removed`` or ``changed``."""
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"
