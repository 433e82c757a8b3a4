"""Opening of directories without any symbolic link on the way.

``openat2`` does it where the kernel has the call and allows it. Elsewhere, and for a path longer than the kernel takes
at once, each component is opened by itself.
"""

import ctypes
import errno
import functools
import os
import struct
from pathlib import Path

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
HANDLE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags for a directory that may be passed and need not be listed."""
AT_FDCWD = -100
"""Stand-in for a descriptor, for an absolute path."""

# <linux/openat2.h>. The number is the same on every architecture.
_NUMBER = 437
_NO_MAGIC_LINKS, _NO_SYMBOLIC_LINKS, _BENEATH = 0x02, 0x04, 0x08
_HOW = struct.Struct("=QQQ")
_NO_SUCH_CALL = (errno.ENOSYS, errno.EPERM, errno.EINVAL)
_WALK_INSTEAD = (errno.EAGAIN, errno.E2BIG, errno.ENAMETOOLONG)
_LIBC = ctypes.CDLL(None, use_errno=True)


def open_directory(directory: int, path: bytes, flags: int = DIRECTORY) -> int:
    """Return a descriptor of the directory at the path below ``directory``, or at an absolute path.

    Raises OSError: ELOOP or ENOTDIR for a link on the way, FileNotFoundError for a missing directory.
    """
    if _has_call():
        resolve = _NO_SYMBOLIC_LINKS | _NO_MAGIC_LINKS | (0 if path.startswith(b"/") else _BENEATH)
        try:
            return _call(directory, path, flags, resolve)
        except OSError as error:
            if error.errno not in _WALK_INSTEAD:
                raise
    return _walk(directory, path, flags)


def open_absolute(path: Path, flags: int = DIRECTORY) -> int:
    """Return a descriptor of the directory at the absolute path. Raises OSError as ``open_directory`` does."""
    text = os.fsencode(path)
    if not text.startswith(b"/") or b".." in text.split(b"/"):
        raise OSError(errno.EINVAL, "is not an absolute path without '..'", str(path))
    return open_directory(AT_FDCWD, text, flags)


def _call(directory: int, path: bytes, flags: int, resolve: int) -> int:
    how = _HOW.pack(flags, 0, resolve)
    descriptor: int = _LIBC.syscall(_NUMBER, directory, path, how, len(how))
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(path))
    return descriptor


@functools.cache
def _has_call() -> bool:
    """Return True when the kernel has the call and allows it. Tried once."""
    try:
        os.close(_call(AT_FDCWD, b"/", HANDLE, _NO_SYMBOLIC_LINKS))
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise
        return False
    return True


def _walk(directory: int, path: bytes, flags: int) -> int:
    names = [name for name in path.split(b"/") if name]
    descriptor = os.open("/", HANDLE) if path.startswith(b"/") else os.dup(directory)
    try:
        for number, name in enumerate(names or [b"."], 1):
            inner = os.open(name, flags if number >= len(names) else HANDLE, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
