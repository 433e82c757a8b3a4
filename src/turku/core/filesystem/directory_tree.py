"""Access to the entries below an open directory, never by way of a symbolic link.

Agent and storage work as root on trees that others may change. A name that somebody replaces by a link meanwhile is
refused, not followed. Paths are bytes, relative to the directory, and ``b""`` is the directory itself.
"""

import errno
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from turku.core.filesystem import openat2, posix_acl
from turku.core.filesystem.paths import is_within, joined, split
from turku.core.filesystem.spool import Stack

DIRECTORY_FLAGS = openat2.DIRECTORY
# Without O_NONBLOCK, opening a pipe that took the file's place would block.
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
CREATE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PASSING_FLAGS = openat2.HANDLE
_OPEN_LIMIT = 64
"""Directories held open at once. A deeper tree does not run out of descriptors."""


def open_directory(root: int, path: bytes) -> int:
    """Return a descriptor of the directory at the path. Raises OSError (NotADirectoryError for a link on the way)."""
    if not path:
        return os.open(".", DIRECTORY_FLAGS, dir_fd=root)
    if any(part in (b"", b".", b"..") for part in path.split(b"/")):
        raise OSError(errno.EINVAL, "is not a path below a directory", os.fsdecode(path))
    try:
        return openat2.open_directory(root, path)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fsdecode(path)) from error


@contextmanager
def opened_directory(root: int, path: bytes) -> Iterator[int]:
    """Yield a descriptor of the directory at the path. Raises as ``open_directory`` does."""
    descriptor = open_directory(root, path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_or_create(directory: Path, *, mode: int) -> int:
    """Return a descriptor of the absolute directory. Create it and its parents if missing. Follow no link.

    Raises OSError with the path of the part that failed.
    """
    descriptor = os.open("/", _PASSING_FLAGS)
    parts = directory.parts[1:]
    try:
        for number, part in enumerate(parts, 1):
            flags = DIRECTORY_FLAGS if number == len(parts) else _PASSING_FLAGS
            try:
                inner = os.open(part, flags, dir_fd=descriptor)
            except FileNotFoundError:
                os.mkdir(part, mode, dir_fd=descriptor)
                inner = os.open(part, flags, dir_fd=descriptor)
                posix_acl.clear(inner)
            os.close(descriptor)
            descriptor = inner
        return descriptor if parts else os.open("/", DIRECTORY_FLAGS)
    except OSError as error:
        os.close(descriptor)
        error.filename = str(Path("/", *parts[:number]))
        raise


def open_file(root: int, path: bytes, flags: int = READ_FLAGS) -> int:
    """Return a descriptor of the regular file at the path. Raises OSError for anything else."""
    above, name = split(path)
    directory = open_directory(root, above)
    try:
        return open_file_in(directory, name, flags)
    finally:
        os.close(directory)


def open_file_in(directory: int, name: bytes, flags: int = READ_FLAGS) -> int:
    """Return a descriptor of the regular file ``name`` in an open directory. Raises OSError for anything else."""
    descriptor = os.open(name, flags, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a regular file", os.fsdecode(name))
    return descriptor


def status(root: int, path: bytes) -> os.stat_result | None:
    """Return the status of the entry at the path, or None if there is none or a link is on the way."""
    above, name = split(path)
    try:
        directory = open_directory(root, above)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.stat(name or b".", dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    finally:
        os.close(directory)


class WalkEntry(NamedTuple):
    """An entry that a walk found."""

    path: bytes
    """Path of its directory, relative to the tree. Empty for the tree itself."""
    directory: int
    """Descriptor of that directory, open until the walk continues."""
    name: bytes
    status: os.stat_result

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.status.st_mode)

    @property
    def full_path(self) -> bytes:
        return joined(self.path, self.name)


class DirectoryTree:
    """A directory with all that lies below it, for paths of any length and depth. A context manager.

    Paths are bytes, relative to the tree. The directories on the way to the last one are kept open, because entries are
    usually visited directory by directory. Every method raises OSError, such as FileNotFoundError for a missing entry.
    """

    def __init__(self, root: Path | int) -> None:
        """Open the tree. ``root`` is a path, or a descriptor that the tree then owns."""
        descriptor = openat2.open_absolute(root) if isinstance(root, Path) else root
        self._chain: list[tuple[bytes, int]] = [(b"", descriptor)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all descriptors. Further calls do nothing."""
        while self._chain:
            self._leave(self._chain.pop()[1])

    @property
    def root(self) -> int:
        """Descriptor of the tree's own directory."""
        return self._chain[0][1]

    def directory(self, path: bytes) -> int:
        """Return a descriptor of the directory at the path. The tree owns it, and it is valid until the next call."""
        while not is_within(path, self._chain[-1][0]):
            self._leave(self._chain.pop()[1])
        reached, descriptor = self._chain[-1]
        rest = path[len(reached) :].lstrip(b"/")
        for name in rest.split(b"/") if rest else ():
            if name in (b"", b".", b".."):
                raise OSError(errno.EINVAL, "is not a path within a tree", os.fsdecode(path))
            reached = joined(reached, name)
            descriptor = self._enter(descriptor, name)
            if len(self._chain) >= _OPEN_LIMIT:
                # Close the outermost, so that the way back from a great depth is as short as the way down.
                self._leave(self._chain.pop(1)[1])
            self._chain.append((reached, descriptor))
        return descriptor

    def _enter(self, parent: int, name: bytes) -> int:
        return os.open(name, DIRECTORY_FLAGS, dir_fd=parent)

    def _leave(self, descriptor: int) -> None:
        os.close(descriptor)

    def find_directory(self, path: bytes) -> int | None:
        """Return what ``directory`` does, or None if there is no directory or it cannot be read."""
        try:
            return self.directory(path)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO):
                raise
            return None

    def status(self, path: bytes) -> os.stat_result:
        """Return the status of the entry at the path, without following a link. An empty path is the tree itself."""
        if not path:
            return os.fstat(self.root)
        directory, name = split(path)
        return os.stat(name, dir_fd=self.directory(directory), follow_symlinks=False)

    def open_file(self, path: bytes, flags: int = READ_FLAGS) -> int:
        """Return a descriptor of the regular file at the path. The caller closes it."""
        directory, name = split(path)
        return open_file_in(self.directory(directory), name, flags)

    def walk(
        self, path: bytes = b"", *, skip_unreadable: bool = True, skips: Collection[bytes] = ()
    ) -> Iterator[WalkEntry]:
        """Yield every entry below the directory, each directory before its own entries. Do not enter ``skips``.

        A directory that cannot be read is skipped, or raises OSError without ``skip_unreadable``. An entry that
        vanishes while its directory is listed is skipped in any case.
        """
        # An untrusted side decides the number of directories and the length of their paths.
        with Stack() as waiting:
            waiting.push(path)
            while (reached := waiting.pop()) is not None:
                try:
                    directory = self.find_directory(reached) if skip_unreadable else self.directory(reached)
                    if directory is None:
                        continue
                    listing = os.scandir(directory)
                except (PermissionError, FileNotFoundError):
                    if skip_unreadable:
                        continue
                    raise
                inner = []
                with listing:
                    for entry in listing:
                        try:
                            found = entry.stat(follow_symlinks=False)
                        except FileNotFoundError:
                            continue
                        name = os.fsencode(entry.name)
                        if stat.S_ISDIR(found.st_mode):
                            inner.append(name)
                        yield WalkEntry(reached, directory, name, found)
                below = (joined(reached, name) for name in sorted(inner, reverse=True))
                waiting.push_all(each for each in below if each not in skips)
