"""Removing a tree whatever is in it: names are bytes, directories may be unreadable, paths longer than the system's.

It never follows a symbolic link and never changes a file's mode: a file may be a hard link into another snapshot.
Directories are no one else's, so theirs may change on the way.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from turku.errors import DurableWriteFailed
from turku.storage.fs import subvolume, tree

_DEPTH_LIMIT = 64
"""Levels held open at once; what lies deeper is first moved up, so that neither paths nor descriptors run out."""
_ROUNDS_LIMIT = 10_000
_ENTRIES_BETWEEN_QUESTIONS = 100


def remove_tree(path: Path, go_on: Callable[[], bool] = lambda: True) -> bool:
    """Remove the file, link or directory at ``path``; return False where ``go_on``, asked now and then, said no.

    Raises DurableWriteFailed naming what could not be removed.
    """
    status = tree.status(path)
    if status is None:
        return True
    try:
        if not stat.S_ISDIR(status.st_mode):
            tree.unlink(path)
            return True
        if subvolume.is_subvolume(path) and subvolume.delete(path):
            return True
        with tree.opened(path.parent) as parent:
            _Removal(go_on).remove_directory(parent, os.fsencode(path.name))
        return True
    except _Stopped:
        return False
    except OSError as error:
        raise DurableWriteFailed(
            f"cannot remove {path}: {error.strerror or error}" + (f" ({error.filename!r})" if error.filename else ""),
            hint="is it held by another program, immutable (lsattr), or another user's?",
        ) from error


def open_changeable(name: bytes, *, parent: int) -> int:
    """Return a descriptor of the directory, made readable and writable for its owner where it was not."""
    flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(name, os.O_RDONLY | flags, dir_fd=parent)
    except PermissionError:
        # O_PATH needs no permission on the directory itself; /proc reaches it without following a name again.
        handle = os.open(name, os.O_PATH | flags, dir_fd=parent)
        try:
            tree.set_mode_of_handle(handle, stat.S_IRWXU)
        finally:
            os.close(handle)
        descriptor = os.open(name, os.O_RDONLY | flags, dir_fd=parent)
    if os.fstat(descriptor).st_ino == subvolume.ROOT_INODE:
        # The root of a file system, or a subvolume, which may be read-only.
        with suppress(OSError):
            subvolume.set_read_only_by_descriptor(descriptor, read_only=False)
    if os.geteuid() != 0 and stat.S_IMODE(os.fstat(descriptor).st_mode) & stat.S_IRWXU != stat.S_IRWXU:
        os.fchmod(descriptor, stat.S_IRWXU)
    return descriptor


class _Stopped(Exception):
    """It was said not to go on."""


class _Removal:
    def __init__(self, go_on: Callable[[], bool]) -> None:
        self._go_on = go_on
        self._removed = 0
        self._moved = 0

    def remove_directory(self, parent: int, name: bytes) -> None:
        top = open_changeable(name, parent=parent)
        try:
            for _ in range(_ROUNDS_LIMIT):
                self._empty(top, top, depth=1)
                try:
                    os.rmdir(name, dir_fd=parent)
                except OSError:
                    if self._is_empty(top):
                        raise
                    continue
                return
            os.rmdir(name, dir_fd=parent)
        finally:
            os.close(top)

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
                elif depth >= _DEPTH_LIMIT:
                    self._move_up(directory, name, top)
                else:
                    child = open_changeable(name, parent=directory)
                    try:
                        self._empty(child, top, depth=depth + 1)
                    finally:
                        os.close(child)
                    self._remove_emptied(name, directory)

    def _count(self) -> None:
        self._removed += 1
        if self._removed % _ENTRIES_BETWEEN_QUESTIONS == 0 and not self._go_on():
            raise _Stopped

    def _remove_emptied(self, name: bytes, directory: int) -> None:
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError as error:
            # Entries that a directory stream skipped while it was changed: the next round sees them.
            child = open_changeable(name, parent=directory)
            try:
                if self._is_empty(child):
                    raise error
            finally:
                os.close(child)

    def _move_up(self, directory: int, name: bytes, top: int) -> None:
        # Moving a directory needs leave to write in it, for its own '..'.
        os.close(open_changeable(name, parent=directory))
        while True:
            self._moved += 1
            target = b".turku-deep-%d" % self._moved
            try:
                os.stat(target, dir_fd=top, follow_symlinks=False)
            except FileNotFoundError:
                break
        os.rename(name, target, src_dir_fd=directory, dst_dir_fd=top)
