"""Subvolumes of btrfs: created, snapshotted, sealed and deleted by the kernel's own calls.

The root directory of a subvolume has inode number 256, and nothing else on btrfs has. A read-only subvolume can be
renamed within its directory, but not moved into another one.
"""

import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

from turku.storage.fs import tree

ROOT_INODE = 256
# From <linux/btrfs.h>: direction and size of the argument, 0x94, number of the call.
_SNAP_DESTROY = 0x5000940F
_SNAP_CREATE_V2 = 0x50009417
_SUBVOL_CREATE_V2 = 0x50009418
_SUBVOL_GETFLAGS = 0x80089419
_SUBVOL_SETFLAGS = 0x4008941A
_READ_ONLY = 1 << 1
_ARGUMENTS = struct.Struct("=q4088s")
_ARGUMENTS_V2 = struct.Struct("=qQQ32s4040s")
_FLAGS = struct.Struct("=Q")
_REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOTEMPTY, errno.EROFS)


def is_btrfs(directory: Path) -> bool:
    """Return True if the directory lies on btrfs. Raises OSError for errors that do not tell."""
    try:
        with tree.opened(directory) as descriptor:
            _flags(descriptor)
    except OSError as error:
        if error.errno in tree.SAYS_NOTHING:
            raise
        # On btrfs the call demands the root of a subvolume. Elsewhere there is no such call.
        return error.errno == errno.EINVAL
    return True


def is_subvolume(path: Path) -> bool:
    """Return True if a subvolume, not a link to one, lies at ``path``."""
    status = tree.status(path)
    return status is not None and stat.S_ISDIR(status.st_mode) and status.st_ino == ROOT_INODE and is_btrfs(path.parent)


def create(path: Path) -> None:
    """Create an empty subvolume that only its owner can enter."""
    with tree.opened(path.parent) as parent:
        _call(parent, _SUBVOL_CREATE_V2, _ARGUMENTS_V2.pack(0, 0, 0, b"", os.fsencode(path.name)), path)
        tree.change_mode(path, 0o700)
        os.fsync(parent)


def snapshot(source: Path, target: Path) -> None:
    """Create a writable snapshot of the subvolume ``source``. It is complete and durable from its first moment."""
    with tree.opened(source) as descriptor, tree.opened(target.parent) as parent:
        _call(parent, _SNAP_CREATE_V2, _ARGUMENTS_V2.pack(descriptor, 0, 0, b"", os.fsencode(target.name)), target)


def set_read_only(path: Path, *, read_only: bool) -> None:
    """Make the subvolume at ``path`` read-only, or writable again."""
    with tree.opened(path) as descriptor:
        set_read_only_by_descriptor(descriptor, read_only=read_only)


def set_read_only_by_descriptor(descriptor: int, *, read_only: bool) -> None:
    """Do what ``set_read_only`` does, for the open root directory of a subvolume."""
    flags = _flags(descriptor)
    wanted = flags | _READ_ONLY if read_only else flags & ~_READ_ONLY
    if wanted != flags:
        fcntl.ioctl(descriptor, _SUBVOL_SETFLAGS, _FLAGS.pack(wanted))


def delete(path: Path) -> bool:
    """Delete the subvolume. Return False if the kernel does not allow it.

    The kernel frees the space later. It allows root to delete a subvolume without another one inside, and an owner
    where the file system is mounted with ``user_subvol_rm_allowed``.
    """
    try:
        set_read_only(path, read_only=False)
        with tree.opened(path.parent) as parent:
            _call(parent, _SNAP_DESTROY, _ARGUMENTS.pack(0, os.fsencode(path.name)), path)
            os.fsync(parent)
    except OSError as error:
        if error.errno in _REFUSALS:
            return False
        raise
    return True


def _flags(descriptor: int) -> int:
    flags: int = _FLAGS.unpack(fcntl.ioctl(descriptor, _SUBVOL_GETFLAGS, _FLAGS.pack(0)))[0]
    return flags


def _call(descriptor: int, request: int, arguments: bytes, path: Path) -> None:
    try:
        # A bytearray, because Python copies no more than 1024 bytes of an immutable argument.
        fcntl.ioctl(descriptor, request, bytearray(arguments), True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
