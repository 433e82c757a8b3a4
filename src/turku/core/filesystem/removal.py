"""Removal of directory trees that other programs may change meanwhile, never by way of a symbolic link."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from turku.core.filesystem.openat2 import DIRECTORY, HANDLE

_OPEN_LIMIT = 64
"""Directories held open at once. A deeper tree does not run out of descriptors."""
_ROUNDS_LIMIT = 10_000
_ENTRIES_BETWEEN_QUESTIONS = 100


def remove(
    parent: int,
    name: bytes,
    *,
    go_on: Callable[[], bool] = lambda: True,
    prepare: Callable[[int], None] = lambda _directory: None,
) -> int:
    """Remove what has this name in the directory, whatever it is, with all that is below it; return how many names.

    ``go_on`` is asked now and then. ``prepare`` is given each directory before anything in it is removed. A file's mode
    is never changed, as it may have other names; directories are no one else's, so theirs may be. Raises OSError, and
    Stopped where ``go_on`` said no.
    """
    try:
        os.unlink(name, dir_fd=parent)
        return 1
    except FileNotFoundError:
        return 0
    except (IsADirectoryError, PermissionError):
        # Linux says EISDIR, POSIX allows EPERM.
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise
    removal = _Removal(go_on, prepare)
    removal.remove_directory(parent, name)
    return removal.count


class RemovalStopped(Exception):
    """It was said not to go on."""


class _Removal:
    def __init__(self, go_on: Callable[[], bool], prepare: Callable[[int], None]) -> None:
        self.count = 0
        self._go_on = go_on
        self._prepare = prepare
        self._moved = 0

    def remove_directory(self, parent: int, name: bytes) -> None:
        top = self._open(name, parent)
        try:
            for _ in range(_ROUNDS_LIMIT):
                self._empty(top, top, depth=1)
                try:
                    os.rmdir(name, dir_fd=parent)
                except OSError:
                    if self._is_empty(top):
                        raise
                    continue
                self.count += 1
                return
            os.rmdir(name, dir_fd=parent)
        finally:
            os.close(top)

    def _open(self, name: bytes, parent: int) -> int:
        return open_changeable(name, parent=parent, prepare=self._prepare)

    def _is_empty(self, directory: int) -> bool:
        with os.scandir(directory) as entries:
            return next(entries, None) is None

    def _empty(self, directory: int, top: int, *, depth: int) -> None:
        with os.scandir(directory) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(name, dir_fd=directory)
                    self._count()
                elif depth >= _OPEN_LIMIT:
                    # Whoever made the tree chose its depth: neither paths nor descriptors may run out.
                    self._move_up(directory, name, top)
                else:
                    child = self._open(name, directory)
                    try:
                        self._empty(child, top, depth=depth + 1)
                    finally:
                        os.close(child)
                    self._remove_emptied(name, directory)

    def _count(self) -> None:
        self.count += 1
        if self.count % _ENTRIES_BETWEEN_QUESTIONS == 0 and not self._go_on():
            raise RemovalStopped

    def _remove_emptied(self, name: bytes, directory: int) -> None:
        try:
            os.rmdir(name, dir_fd=directory)
            self._count()
        except OSError:
            # Entries that a directory stream skipped while it was changed: the next round sees them.
            child = self._open(name, directory)
            try:
                if self._is_empty(child):
                    raise
            finally:
                os.close(child)

    def _move_up(self, directory: int, name: bytes, top: int) -> None:
        # Moving a directory needs leave to write in it, for its own '..'.
        os.close(self._open(name, directory))
        while True:
            self._moved += 1
            target = b".turku-deep-%d" % self._moved
            try:
                os.stat(target, dir_fd=top, follow_symlinks=False)
            except FileNotFoundError:
                break
        try:
            os.rename(name, target, src_dir_fd=directory, dst_dir_fd=top)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # What lies below another file system's root, or a subvolume's, is moved up as far as that.
            self.remove_directory(directory, name)


def open_changeable(name: bytes, *, parent: int, prepare: Callable[[int], None] = lambda _directory: None) -> int:
    """Return a descriptor of the directory, made readable and writable for its owner where it was not.

    ``prepare`` is given it before its mode is looked at. Raises OSError.
    """
    try:
        descriptor = os.open(name, DIRECTORY, dir_fd=parent)
    except PermissionError:
        # O_PATH needs no permission on the directory itself.
        handle = os.open(name, HANDLE, dir_fd=parent)
        try:
            set_mode_of_handle(handle, stat.S_IRWXU)
        finally:
            os.close(handle)
        descriptor = os.open(name, DIRECTORY, dir_fd=parent)
    prepare(descriptor)
    make_writable(descriptor)
    return descriptor


def make_writable(directory: int) -> None:
    """Let an owner who is not root change the open directory."""
    if os.geteuid() != 0:
        found = os.fstat(directory)
        if found.st_uid == os.geteuid() and found.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.fchmod(directory, stat.S_IMODE(found.st_mode) | stat.S_IRWXU)


def set_mode_of_handle(handle: int, mode: int) -> None:
    """Give what an O_PATH descriptor stands for a mode: no permission on it is needed, and no name is looked up."""
    os.chmod(f"/proc/self/fd/{handle}", mode)  # noqa: PTH101  (a descriptor)
