"""The entries of a catalog. An entry is one version of a path."""

import stat
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class EntryKind(StrEnum):
    """The kind of a directory entry."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    FIFO = "fifo"
    SOCKET = "socket"
    BLOCK = "block"
    CHARACTER = "character"


NO_ATTRIBUTES = b""
"""The digest of a file with neither extended attributes nor ACLs."""
KINDS = tuple(EntryKind)
"""The kinds by the number that catalog files store. Their order must never change."""
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
    """Return the number of the kind in a file's mode, or that of a regular file for an unknown kind."""
    return _BY_FORMAT.get(stat.S_IFMT(mode), FILE)


_LONGEST_TIME = 2**63 - 1
_EXACT_TIME_BYTES = 16


def stored_time(mtime_ns: int) -> int | bytes:
    """Return a time as catalog files store it: a number of 64 bits, or 16 bytes if it does not fit.

    btrfs, tmpfs and xfs have seconds of 64 bits, and ext4 reaches the year 2446.
    """
    if -_LONGEST_TIME <= mtime_ns < _LONGEST_TIME:
        return mtime_ns
    return mtime_ns.to_bytes(_EXACT_TIME_BYTES, "big", signed=True)


def time_of(stored: int | bytes) -> int:
    """Return the nanoseconds of a time in a catalog file."""
    return int.from_bytes(stored, "big", signed=True) if isinstance(stored, bytes) else stored


def is_time(recorded_ns: int, found_ns: int) -> bool:
    """Return True if a file with this time has the recorded time.

    Catalogs of earlier releases store the nearest time that 64 bits of nanoseconds can express.
    """
    return recorded_ns in (found_ns, max(-_LONGEST_TIME - 1, min(found_ns, _LONGEST_TIME)))


class CatalogEntry(NamedTuple):
    """One version of a path, and the snapshots that have it."""

    path: bytes
    """The path relative to the source."""
    kind: EntryKind
    size: int
    """The size of a file in bytes, 0 for other kinds."""
    mode: int
    """The permissions, without the kind."""
    uid: int
    gid: int
    mtime_ns: int
    checksum: bytes | None
    """The xxh128 of a file's content, 16 bytes, or None if it was not computed yet."""
    link_target: bytes | None
    first: str
    """The oldest snapshot of an unbroken series that has this version."""
    last: str
    """The newest snapshot of that series."""
    version: int
    """The number of this version for ``Catalog.set_checksums`` and ``Catalog.set_checked``. It is not stable."""
    checked: int = 0
    """The time when the content was last compared with the checksum, in Unix seconds, or 0 for never."""
    attributes: bytes | None = None
    """The digest of extended attributes and ACLs, or ``NO_ATTRIBUTES`` for none.

    None if they were not read yet.
    """

    @property
    def name(self) -> bytes:
        """Return the last part of the path."""
        return self.path.rpartition(b"/")[2]

    @property
    def content(self) -> tuple[object, ...]:
        """Return the values in which two versions differ."""
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

    def may_be(self, other: "CatalogEntry") -> bool:
        """Return True if nothing that is known distinguishes the two."""
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
    """A path that differs between two snapshots. A side that lacks it is None."""

    before: CatalogEntry | None
    after: CatalogEntry | None

    @property
    def path(self) -> bytes:
        entry = self.after or self.before
        return b"" if entry is None else entry.path

    @property
    def kind(self) -> str:
        """Return ``added``, ``removed`` or ``changed``."""
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"
