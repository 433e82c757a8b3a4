"""Removal of directory trees that other programs may change meanwhile, never by way of a symbolic link."""

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
    """Remove the entry of this name in the directory, with all that lies below it. Return the number of names removed.

    ``go_on`` is called now and then. ``prepare`` is called with each directory before its entries are removed. Modes of
    directories may be changed for it. Modes of files never are, because a file may have other names. Raises OSError,
    and RemovalStopped if ``go_on`` returns False.
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
    """The caller stopped the removal."""


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
                    # An untrusted side decides the depth: neither paths nor descriptors may run out.
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
            # A directory stream may skip entries while it changes. The next round sees them.
            child = self._open(name, directory)
            try:
                if self._is_empty(child):
                    raise
            finally:
                os.close(child)

    def _move_up(self, directory: int, name: bytes, top: int) -> None:
        # Moving a directory needs write permission on it, for its own '..'.
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
            # Below the root of another file system or subvolume, it can be moved up to that root only.
            self.remove_directory(directory, name)


def open_changeable(name: bytes, *, parent: int, prepare: Callable[[int], None] = lambda _directory: None) -> int:
    """Return a descriptor of the directory, and make it readable and writable for its owner.

    ``prepare`` is called with it before its mode is read. Raises OSError.
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
    """Make the open directory writable for its owner, if that is not root."""
    if os.geteuid() != 0:
        found = os.fstat(directory)
        if found.st_uid == os.geteuid() and found.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.fchmod(directory, stat.S_IMODE(found.st_mode) | stat.S_IRWXU)


def set_mode_of_handle(handle: int, mode: int) -> None:
    """Set the mode of an O_PATH descriptor. This needs no permission on it and looks up no name."""
    os.chmod(f"/proc/self/fd/{handle}", mode)  # noqa: PTH101  (a descriptor)
