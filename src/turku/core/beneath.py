"""Opening and removing what lies below an open directory, never by way of a symbolic link.

Paths are bytes, relative to the directory, and ``b""`` is the directory itself. A name that somebody swaps for a link
while a program works is refused, not followed.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from turku.core import openat2
from turku.core.spool import Stack

DIRECTORY_FLAGS = openat2.DIRECTORY
# Without O_NONBLOCK a pipe that took a file's place would keep us waiting.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PASSING_FLAGS = openat2.HANDLE
_ENTER, _LEAVE = b"e", b"l"


def open_directory(root: int, path: bytes) -> int:
    """Return a descriptor of the directory at the path. Raises OSError; NotADirectoryError for a link on the way."""
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


def open_made(directory: Path, *, mode: int) -> int:
    """Return a descriptor of the absolute directory, made with its parents where it is missing; no link is followed.

    Raises OSError, with the part of the path that it is about.
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
            os.close(descriptor)
            descriptor = inner
        return descriptor if parts else os.open("/", DIRECTORY_FLAGS)
    except OSError as error:
        os.close(descriptor)
        error.filename = str(Path("/", *parts[:number]))
        raise


def open_file(root: int, path: bytes) -> int:
    """Return a descriptor of the regular file at the path, to be read. Raises OSError for anything else."""
    above, _slash, name = path.rpartition(b"/")
    directory = open_directory(root, above)
    try:
        descriptor = os.open(name, _READ_FLAGS, dir_fd=directory)
    finally:
        os.close(directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", os.fsdecode(path))
    return descriptor


def status(root: int, path: bytes) -> os.stat_result | None:
    """Return the status of what is at the path; None where nothing is, or where the way there has a link in it."""
    above, _slash, name = path.rpartition(b"/")
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


def remove(parent: int, name: bytes) -> int:
    """Remove what has this name in the directory, whatever it is, with all that is below it; return how many names.

    Raises OSError.
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
        return _remove_directory(parent, name)


def _remove_directory(parent: int, name: bytes) -> int:
    # Not recursive: whoever made the tree chose its depth.
    count = 0
    with Stack() as waiting:
        waiting.push(_ENTER + name)
        while (item := waiting.pop()) is not None:
            path = item[1:]
            if item.startswith(_LEAVE):
                above, _slash, last = path.rpartition(b"/")
                directory = open_directory(parent, above)
                try:
                    os.rmdir(last, dir_fd=directory)
                finally:
                    os.close(directory)
                count += 1
                continue
            waiting.push(_LEAVE + path)
            directory = _open_to_change(parent, path)
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        inner = os.fsencode(entry.name)
                        if entry.is_dir(follow_symlinks=False):
                            waiting.push(_ENTER + path + b"/" + inner)
                        else:
                            os.unlink(inner, dir_fd=directory)
                            count += 1
            finally:
                os.close(directory)
    return count


def _open_to_change(parent: int, path: bytes) -> int:
    """Open a directory of which names are to be removed, also where its mode forbids its owner that."""
    try:
        directory = open_directory(parent, path)
    except PermissionError:
        above, _slash, name = path.rpartition(b"/")
        outer = open_directory(parent, above)
        try:
            handle = os.open(name, _PASSING_FLAGS, dir_fd=outer)
        finally:
            os.close(outer)
        try:
            Path(f"/proc/self/fd/{handle}").chmod(0o700)
        finally:
            os.close(handle)
        directory = open_directory(parent, path)
    make_writable(directory)
    return directory


def make_writable(directory: int) -> None:
    """Let an owner who is not root change the open directory."""
    if os.geteuid() != 0:
        found = os.fstat(directory)
        if found.st_uid == os.geteuid() and found.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.fchmod(directory, stat.S_IMODE(found.st_mode) | stat.S_IRWXU)
