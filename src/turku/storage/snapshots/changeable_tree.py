"""A tree of our own that is changed by linking, moving and unlinking, never by opening a file for writing."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from turku.core.filesystem.directory_tree import DirectoryTree
from turku.core.filesystem.paths import split
from turku.core.filesystem.spool import Stack
from turku.storage.fs import attributes, clone
from turku.storage.fs import tree as fs
from turku.storage.fs.remove import open_changeable

OnDeleted = Callable[[bytes], None]
"""Is called with the path of each entry that is removed from the tree."""


class ChangeableTree(DirectoryTree):
    """A tree whose directories can be changed even without write permission.

    A directory that is left gets back the mode and times that it had when it was entered.
    """

    def __init__(self, root: Path) -> None:
        self._left_with: dict[int, os.stat_result] = {}
        with fs.opened(root.parent) as parent:
            super().__init__(self._enter(parent, os.fsencode(root.name)))

    def _enter(self, parent: int, name: bytes) -> int:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fsdecode(name))
        descriptor = open_changeable(name, parent=parent)
        self._left_with[descriptor] = status
        return descriptor

    def _leave(self, descriptor: int) -> None:
        status = self._left_with.pop(descriptor)
        try:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != stat.S_IMODE(status.st_mode):
                os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
            os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(descriptor)

    def leave_as(self, descriptor: int, status: os.stat_result) -> None:
        """Give the open directory this mode and these times when it is left."""
        self._left_with[descriptor] = status

    def find(self, path: bytes) -> os.stat_result | None:
        """Return the status of the entry at the path. None if there is none."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return self.status(path)
        return None

    def remove(self, path: bytes, on_deleted: OnDeleted, *, also_directory: bool) -> None:
        """Remove the entry at the path with all its content, if there is one. The tree itself is not removed."""
        status = self.find(path)
        if not path or status is None:
            return
        is_directory = stat.S_ISDIR(status.st_mode)
        if is_directory and not also_directory:
            return
        with Stack() as found:
            found.push(path)
            for each in self.walk(path, skip_unreadable=False) if is_directory else ():
                found.push(each.full_path)
            while (inner := found.pop()) is not None:
                self._remove(inner)
                on_deleted(inner)

    def remove_one(self, path: bytes) -> None:
        """Remove the entry or empty directory at the path. The tree itself is not removed. Raises OSError."""
        if path:
            self._remove(path)

    def _remove(self, path: bytes) -> None:
        directory, name = split(path)
        parent = self.directory(directory)
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.rmdir(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)

    def make_directory(self, path: bytes, on_deleted: OnDeleted) -> bool:
        """Make a directory at the path in place of anything else. Return True if it was made.

        Raises FileNotFoundError if its parent does not exist.
        """
        status = self.find(path)
        if status is not None and stat.S_ISDIR(status.st_mode):
            return False
        self.remove(path, all_but(path, on_deleted), also_directory=False)
        directory, name = split(path)
        os.mkdir(name, 0o700, dir_fd=self.directory(directory))
        return True

    def link(self, existing: bytes, path: bytes, on_deleted: OnDeleted) -> None:
        """Make ``path`` a hard link to the entry at ``existing``, in place of anything else.

        If the entry can have no further link, it is copied. Raises FileNotFoundError if there is no entry.
        """
        self.remove(path, all_but(path, on_deleted), also_directory=True)
        (source, name), (target, new_name) = split(existing), split(path)
        # Opening the directory of one path may close that of the other.
        opened = os.dup(self.directory(source))
        try:
            clone.link_or_copy(opened, name, self.directory(target), new_name)
        finally:
            os.close(opened)

    def take_attributes(self, other: ChangeableTree, path: bytes) -> None:
        """Give the directory at the path the attributes, mode and times of the one in the other tree."""
        try:
            source, target = other.directory(path), self.directory(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        # Mode and times are set when the directory is left.
        self._left_with[target] = other._left_with[source]
        attributes.copy(self._left_with[target], source, target)


def all_but(path: bytes, on_deleted: OnDeleted) -> OnDeleted:
    """Return a callback that skips the path, because another entry takes its place."""
    return lambda each: None if each == path else on_deleted(each)
