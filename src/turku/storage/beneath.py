"""Opening what lies in a stored tree, never by way of a symbolic link: a machine says what its trees hold.

Paths are bytes, relative to the tree's root. The directory opened last is kept open, as files come in directories.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK a pipe that took a file's place would keep us waiting.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_directory(path: Path) -> int:
    """A descriptor of the directory; neither it nor the directory that holds it may be a link.

    A receiver that was taken over can put a link where a source's snapshots were: into another machine's.
    """
    parent = os.open(path.parent, _DIRECTORY_FLAGS)
    try:
        return os.open(path.name, _DIRECTORY_FLAGS, dir_fd=parent)
    finally:
        os.close(parent)


class Tree:
    """A stored tree; a context manager. Everything raises OSError, FileNotFoundError for what is not there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root = open_directory(root)
        self._parent = b""
        self._descriptor = self._root

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        self._leave_parent()
        os.close(self._root)

    def directory_of(self, path: bytes) -> tuple[int, bytes]:
        """The descriptor of the directory that holds what is at the path, good until the next call; its name there."""
        parent, _, name = path.rpartition(b"/")
        if parent != self._parent:
            self._leave_parent()
            self._descriptor = self._walk(parent)
            self._parent = parent
        return self._descriptor, name

    def status(self, path: bytes) -> os.stat_result:
        directory, name = self.directory_of(path)
        return os.stat(name, dir_fd=directory, follow_symlinks=False)

    def open_file(self, path: bytes) -> int:
        """A descriptor of the regular file at the path, to be read and closed."""
        directory, name = self.directory_of(path)
        descriptor = os.open(name, _READ_FLAGS, dir_fd=directory)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "is not a regular file", os.fsdecode(path))
        return descriptor

    def _walk(self, path: bytes) -> int:
        descriptor = os.dup(self._root)
        try:
            for part in path.split(b"/") if path else ():
                if part in (b"", b".", b".."):
                    raise OSError(errno.EINVAL, "is no path within a tree", os.fsdecode(path))
                inner = os.open(part, _DIRECTORY_FLAGS, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _leave_parent(self) -> None:
        if self._descriptor != self._root:
            os.close(self._descriptor)
        self._descriptor, self._parent = self._root, b""
