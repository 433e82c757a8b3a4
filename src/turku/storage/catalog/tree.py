"""What a snapshot's tree holds, entry by entry, as the machine has it.

Ownership, kinds and modes that a storage without root keeps in extended attributes (rsync's ``--fake-super``) are told
as the machine has them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from turku.core import directory_tree
from turku.storage import stored_content
from turku.storage.catalog.entry import DIRECTORY, FILE, LINK, kind_number
from turku.storage.fs import attributes

_LONGEST_TIME = 2**63 - 1


def recorded_time(mtime_ns: int) -> int:
    """Return a file's time as the catalog has it: in nanoseconds of 64 bits.

    btrfs and tmpfs keep seconds of 64 bits. What a machine dates before 1677 or after 2262 gets the nearest such time.
    """
    return max(-_LONGEST_TIME - 1, min(mtime_ns, _LONGEST_TIME))


class Found(NamedTuple):
    """What lies at a name; without the name."""

    kind: int
    size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    link_target: bytes | None
    device: int
    inode: int
    links: int


class Tree(directory_tree.Tree):
    """A snapshot's directory, read for the catalog."""

    def __init__(self, root: Path | int, *, has_attributes: bool = True) -> None:
        """``root`` is as with ``directory_tree.Tree``. Without ``has_attributes`` nothing was kept in any.

        Raises OSError where no directory is.
        """
        super().__init__(root)
        self._has_attributes = has_attributes

    def found(self, directory: int, name: bytes) -> Found | None:
        """Return what lies at ``name`` in an open directory; None for nothing."""
        try:
            return self._found(directory, name, os.stat(name, dir_fd=directory, follow_symlinks=False))
        except OSError as error:
            if error.errno == errno.EIO:
                raise
            return None

    def entries(self, path: bytes) -> Iterator[tuple[bytes, Found]]:
        """Yield the entries of a directory, in no order; none where it cannot be read."""
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
                yield name, self._found(directory, name, status)

    def identity(self, directory: int, name: bytes) -> tuple[int, int] | None:
        """Return device and inode of what lies there, equal for two names of one file; None for nothing."""
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def checksum(self, directory: int, name: bytes, size_bytes: int) -> bytes | None:
        """Return the checksum of the file's content, computed now; None where it cannot be read."""
        try:
            descriptor = directory_tree.open_file_in(directory, name)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            return None
        try:
            return stored_content.checksum_in_memory(descriptor, size_bytes)
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def _found(self, directory: int, name: bytes, status: os.stat_result) -> Found:
        mode, uid, gid = status.st_mode, status.st_uid, status.st_gid
        faked = self._faked(directory, name) if stat.S_IFMT(mode) in (stat.S_IFREG, stat.S_IFDIR) else None
        if faked is not None:
            mode, uid, gid = faked
        kind = kind_number(mode)
        return Found(
            kind=kind,
            size=status.st_size if kind == FILE else 0,
            mode=stat.S_IMODE(mode),
            uid=uid,
            gid=gid,
            mtime_ns=recorded_time(status.st_mtime_ns),
            link_target=attributes.link_target(directory, name, is_faked=faked is not None) if kind == LINK else None,
            device=status.st_dev,
            inode=status.st_ino,
            links=1 if kind == DIRECTORY else status.st_nlink,
        )

    def _faked(self, directory: int, name: bytes) -> tuple[int, int, int] | None:
        if not self._has_attributes:
            return None
        try:
            return attributes.faked(directory, name)
        except OSError:
            self._has_attributes = False
            return None
