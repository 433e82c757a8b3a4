"""What a snapshot's tree holds, entry by entry; symbolic links are never followed, a path is never left.

Ownership, kinds and modes that a storage without root keeps in extended attributes (rsync's ``--fake-super``) are told
as the machine has them.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from turku.storage.catalog.entry import DIRECTORY, FILE, LINK, kind_number

_ATTRIBUTE = "user.rsync.%stat"
_FAKED = re.compile(rb"([0-7]{1,7}) \d+,\d+ (\d{1,10}):(\d{1,10})")
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_LIMIT = 64
"""Directories held open at once: deeper trees are no reason to run out of descriptors."""
_LINK_LIMIT_BYTES = 4096


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


class Tree:
    """A snapshot's directory, read through open descriptors: a path of any length, and no way out of it."""

    def __init__(self, root: Path, *, has_attributes: bool = True) -> None:
        """Without ``has_attributes`` nothing was kept in any. Raises OSError where no directory is."""
        self._open: list[tuple[bytes, int]] = [(b"", os.open(root, _FLAGS))]
        self._has_attributes = has_attributes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _path, descriptor in self._open:
            os.close(descriptor)
        self._open.clear()

    def directory(self, path: bytes) -> int | None:
        """A descriptor of the directory, ours until the next call; None where none can be read."""
        while not _is_below(path, self._open[-1][0]):
            os.close(self._open.pop()[1])
        opened, descriptor = self._open[-1]
        rest = path[len(opened) :].lstrip(b"/")
        for name in rest.split(b"/") if rest else ():
            opened = opened + b"/" + name if opened else name
            try:
                descriptor = os.open(name, _FLAGS, dir_fd=descriptor)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO):
                    raise
                return None
            if len(self._open) >= _OPEN_LIMIT:
                os.close(self._open.pop()[1])
            self._open.append((opened, descriptor))
        return descriptor

    def found(self, directory: int, name: bytes) -> Found | None:
        """What lies at ``name`` in an open directory; None for nothing."""
        try:
            return self._found(directory, name, os.stat(name, dir_fd=directory, follow_symlinks=False))
        except OSError as error:
            if error.errno == errno.EIO:
                raise
            return None

    def entries(self, path: bytes) -> Iterator[tuple[bytes, Found]]:
        """The entries of a directory, in no order; none where it cannot be read."""
        directory = self.directory(path)
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
        """Device and inode of what lies there, equal for two names of one file; None for nothing."""
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            return None
        return status.st_dev, status.st_ino

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
            mtime_ns=status.st_mtime_ns,
            link_target=_link_target(directory, name, is_faked=faked is not None) if kind == LINK else None,
            device=status.st_dev,
            inode=status.st_ino,
            links=1 if kind == DIRECTORY else status.st_nlink,
        )

    def _faked(self, directory: int, name: bytes) -> tuple[int, int, int] | None:
        if not self._has_attributes:
            return None
        path = b"/proc/self/fd/%d/%b" % (directory, name)
        try:
            if _ATTRIBUTE not in os.listxattr(path, follow_symlinks=False):
                return None
            match = _FAKED.fullmatch(os.getxattr(path, _ATTRIBUTE, follow_symlinks=False))
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                self._has_attributes = False
            return None
        return None if match is None else (int(match[1], 8), int(match[2]), int(match[3]))


def is_inside(path: bytes) -> bool:
    """Whether a path that somebody told us can be one of a tree's entries."""
    return bool(path) and b"\0" not in path and not {b"", b".", b".."} & set(path.split(b"/"))


def _is_below(path: bytes, directory: bytes) -> bool:
    return not directory or path == directory or path.startswith(directory + b"/")


def _link_target(directory: int, name: bytes, *, is_faked: bool) -> bytes | None:
    with suppress(OSError):
        if not is_faked:
            return os.readlink(name, dir_fd=directory)
        # Links have no attributes, so that rsync makes a file of one, whose content is the target.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        try:
            return os.read(descriptor, _LINK_LIMIT_BYTES)
        finally:
            os.close(descriptor)
    return None
