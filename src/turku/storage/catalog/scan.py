"""The entries of a snapshot's tree, with the attributes that they have on the machine.

A storage without root keeps owners, kinds and modes in extended attributes (rsync's ``--fake-super``). They are read
from there.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from turku.core.filesystem import directory_tree, extended_attributes, holes
from turku.storage.catalog.entry import DIRECTORY, FILE, LINK, NO_ATTRIBUTES, kind_number, stored_time
from turku.storage.fs import attributes, stored_content

_KEPT_IN_ATTRIBUTES = (stat.S_IFREG, stat.S_IFDIR)
"""The kinds of entries that rsync's ``--fake-super`` creates."""


class ScannedEntry(NamedTuple):
    """An entry of a tree, without its name."""

    kind: int
    size: int
    mode: int
    uid: int
    gid: int
    has_holes: bool
    mtime_ns: int
    link_target: bytes | None
    attributes: bytes | None
    """The digest of its attributes (``CatalogEntry.attributes``)."""
    device: int
    inode: int
    links: int

    def columns(self) -> tuple[object, ...]:
        """Return the columns of a catalog row, from the kind to the attributes."""
        return (*self[:6], stored_time(self.mtime_ns), self.link_target, self.attributes)


class SnapshotReader(directory_tree.DirectoryTree):
    """A snapshot's directory, read for the catalog."""

    def __init__(self, root: Path | int, *, has_attributes: bool = True) -> None:
        """Open the directory, as ``DirectoryTree`` does.

        Without ``has_attributes`` rsync kept no owners in attributes. Raises OSError if it is not a directory.
        """
        super().__init__(root)
        self._has_attributes = has_attributes

    def entry(self, directory: int, name: bytes) -> ScannedEntry | None:
        """Return the entry ``name`` of an open directory, or None if there is none."""
        try:
            return self._scanned(directory, name, os.stat(name, dir_fd=directory, follow_symlinks=False))
        except OSError as error:
            if error.errno == errno.EIO:
                raise
            return None

    def entries(self, path: bytes) -> Iterator[tuple[bytes, ScannedEntry]]:
        """Yield the entries of a directory, in no order, or none if it cannot be read."""
        directory = self.find_directory(path)
        if directory is None:
            return
        try:
            listing = os.scandir(directory)
        except PermissionError:
            return
        with listing:
            for entry in listing:
                name = os.fsencode(entry.name)
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                yield name, self._scanned(directory, name, status)

    def identity(self, directory: int, name: bytes) -> tuple[int, int] | None:
        """Return device and inode, equal for two names of one file, or None if there is no such entry."""
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def checksum(self, directory: int, name: bytes, size_bytes: int) -> bytes | None:
        """Compute the checksum of the file's content. Return None if it cannot be read."""
        return self.content(directory, name, size_bytes)[0]

    def content(
        self, directory: int, name: bytes, size_bytes: int, known: bytes | None = NO_ATTRIBUTES
    ) -> tuple[bytes | None, bytes | None]:
        """Compute the checksum of a file, and return it with its attributes.

        The checksum is None if the file cannot be read. ``known`` are the attributes from ``entry``. If that is None,
        those of the open file are read.
        """
        try:
            descriptor = directory_tree.open_file_in(directory, name)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            return None, known
        try:
            if known is None:
                known = attributes_of(descriptor)
            return stored_content.checksum_in_memory(descriptor, size_bytes), known
        except OSError:
            return None, known
        finally:
            os.close(descriptor)

    def _scanned(self, directory: int, name: bytes, status: os.stat_result) -> ScannedEntry:
        mode, uid, gid = status.st_mode, status.st_uid, status.st_gid
        faked, digest = None, None
        if self._has_attributes or stat.S_IFMT(mode) != stat.S_IFREG:
            faked, digest = self._faked_digest(extended_attributes.path_of(directory, name), status)
        if faked is not None:
            mode, uid, gid = faked
        kind = kind_number(mode)
        return ScannedEntry(
            kind=kind,
            size=status.st_size if kind == FILE else 0,
            mode=stat.S_IMODE(mode),
            uid=uid,
            gid=gid,
            has_holes=holes.has_holes(status),
            mtime_ns=status.st_mtime_ns,
            link_target=attributes.link_target(directory, name, is_faked=faked is not None) if kind == LINK else None,
            attributes=digest,
            device=status.st_dev,
            inode=status.st_ino,
            links=1 if kind == DIRECTORY else status.st_nlink,
        )

    def _faked_digest(self, path: bytes, status: os.stat_result) -> tuple[tuple[int, int, int] | None, bytes | None]:
        """Return the mode with kind, uid and gid that rsync keeps in attributes, and the digest of the machine's.

        Regular files are skipped where rsync keeps nothing in attributes: ``content`` reads theirs ten times faster.
        """
        try:
            listed = extended_attributes.names(path)
            if not listed:
                return None, NO_ATTRIBUTES
            is_able = self._has_attributes and stat.S_IFMT(status.st_mode) in _KEPT_IN_ATTRIBUTES
            faked = attributes.faked_in(path, listed) if is_able else None
            return faked, _digest(path, listed, status.st_mode, faked)
        except OSError:
            return None, None


def attributes_of(descriptor: int, *, counts: Callable[[str], bool] | None = None) -> bytes | None:
    """Return the digest of the attributes of an open file or directory, or None if they cannot be read.

    ``counts`` decides by an attribute's name on this host whether it counts.
    """
    try:
        listed = extended_attributes.names(descriptor)
        if listed and counts is not None:
            listed = [name for name in listed if counts(name)]
        if not listed:
            return NO_ATTRIBUTES
        mode = os.fstat(descriptor).st_mode
        return _digest(descriptor, listed, mode, attributes.faked_in(descriptor, listed))
    except OSError:
        return None


def _digest(target: int | bytes, listed: list[str], mode: int, faked: tuple[int, int, int] | None) -> bytes:
    # Without root, only attributes that rsync keeps can be the machine's.
    is_faked = os.geteuid() != 0 or extended_attributes.is_faked(listed)
    faked_mode = (mode if faked is None else faked[0]) if is_faked else None
    if extended_attributes.are_labelled_here():
        # This host's own labels, which no machine knows.
        listed = [name for name in listed if name != extended_attributes.LABEL]
    return extended_attributes.digest(extended_attributes.pairs(target, listed, faked_mode=faked_mode)) or NO_ATTRIBUTES
