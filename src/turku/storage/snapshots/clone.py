"""Clones: files of their own that share their blocks with another one until one of both is written to.

XFS (made with ``reflink=1``, which mkfs does by itself since 2018) and btrfs have them. A tree is cloned file by file;
names that share a file in the one tree have a file each in the other.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import struct
from contextlib import ExitStack, suppress
from pathlib import Path

_FICLONE = 0x40049409
# <linux/fs.h>: attributes of XFS, which what is made in a directory inherits.
_FSGETXATTR = 0x801C581F
_FSSETXATTR = 0x401C5820
_FSXATTR = struct.Struct("=IIIII8x")
_HAS_COW_EXTENT_SIZE = 0x00010000
_BLOCK_BYTES = 4096
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK a pipe that took a file's place would keep us waiting.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_UNCLONABLE = (errno.EINVAL, errno.EXDEV, errno.EOPNOTSUPP, errno.ETXTBSY, errno.EACCES, errno.EPERM)
_LOG = logging.getLogger(__name__)


def can_clone(directory: Path) -> bool:
    """Whether files in the directory can be cloned; tried with two that have no name."""
    with ExitStack() as stack:
        try:
            descriptors = [os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600) for _ in range(2)]
        except OSError:
            return False
        for descriptor in descriptors:
            stack.callback(os.close, descriptor)
        try:
            os.write(descriptors[0], bytes(_BLOCK_BYTES))
            fcntl.ioctl(descriptors[1], _FICLONE, descriptors[0])
        except OSError:
            return False
    return True


def clone_tree(source: Path, target: Path) -> None:
    """Clone what is in the directory ``source`` into the empty directory ``target``, with owners, modes and times.

    Files that cannot be read or cloned, pipes, sockets and devices are left out, as times of directories are: whoever
    syncs the clone sees to them. Raises OSError, as for a full disk.
    """
    with ExitStack() as stack:
        descriptors = [os.open(tree, _DIRECTORY_FLAGS) for tree in (source, target)]
        for descriptor in descriptors:
            stack.callback(os.close, descriptor)
        left_out = _Cloning(*descriptors).run()
    if left_out:
        _LOG.info("%s: %d files could not be cloned, and are transferred instead", source, left_out)


def keep_changes_small(directory: Path) -> None:
    """Let a write into a clone, below the new directory, take the blocks that it writes; nothing where it does anyway.

    XFS sets 128 KiB apart for each, and gives back what was not needed only after half an hour.
    """
    descriptor = os.open(directory, _DIRECTORY_FLAGS)
    try:
        # Another file system, or another user than the owner's: it is a saving, and no need.
        with suppress(OSError):
            answer = fcntl.ioctl(descriptor, _FSGETXATTR, bytes(_FSXATTR.size))
            flags, extent_bytes, extents, project, _ = _FSXATTR.unpack(answer)
            hint = (flags | _HAS_COW_EXTENT_SIZE, extent_bytes, extents, project, os.fstatvfs(descriptor).f_bsize)
            fcntl.ioctl(descriptor, _FSSETXATTR, _FSXATTR.pack(*hint))
    finally:
        os.close(descriptor)


def clone_within(directory: int, name: bytes, clone: bytes) -> None:
    """Let the new name ``clone`` in the directory be a clone of the file ``name``, attributes included."""
    _clone_file(directory, directory, name, clone)


class _Cloning:
    # Each path is relative to a tree's root, and so as short as rsync has it.

    def __init__(self, source: int, target: int) -> None:
        self._source = source
        self._target = target
        self._left_out = 0

    def run(self) -> int:
        """The number of files that were left out."""
        _copy_attributes(os.fstat(self._source), self._source, self._target)
        waiting = [b"."]
        while waiting:
            waiting += self._directory(waiting.pop())
        return self._left_out

    def _directory(self, path: bytes) -> list[bytes]:
        """The directories in it, made but still empty."""
        found = []
        with ExitStack() as stack:
            try:
                source = os.open(path, _DIRECTORY_FLAGS, dir_fd=self._source)
            except PermissionError:
                return []
            stack.callback(os.close, source)
            target = os.open(path, _DIRECTORY_FLAGS, dir_fd=self._target)
            stack.callback(os.close, target)
            for entry in stack.enter_context(os.scandir(source)):
                name = os.fsencode(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    self._make_directory(source, target, name)
                    found.append(path + b"/" + name)
                elif entry.is_file(follow_symlinks=False):
                    self._file(source, target, name)
                elif entry.is_symlink():
                    _copy_symbolic_link(source, target, name)
        return found

    def _make_directory(self, source: int, target: int, name: bytes) -> None:
        os.mkdir(name, 0o700, dir_fd=target)
        with suppress(PermissionError), ExitStack() as stack:
            inner_source = os.open(name, _DIRECTORY_FLAGS, dir_fd=source)
            stack.callback(os.close, inner_source)
            inner_target = os.open(name, _DIRECTORY_FLAGS, dir_fd=target)
            stack.callback(os.close, inner_target)
            _copy_attributes(os.fstat(inner_source), inner_source, inner_target)

    def _file(self, source: int, target: int, name: bytes) -> None:
        try:
            _clone_file(source, target, name, name)
        except OSError as error:
            if error.errno not in _UNCLONABLE:
                raise
            self._left_out += 1
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=target)


def _clone_file(source: int, target: int, name: bytes, clone: bytes) -> None:
    inner_source = os.open(name, _READ_FLAGS, dir_fd=source)
    try:
        status = os.fstat(inner_source)
        inner_target = os.open(clone, _CREATE_FLAGS, 0o600, dir_fd=target)
        try:
            if status.st_size:
                fcntl.ioctl(inner_target, _FICLONE, inner_source)
            _copy_attributes(status, inner_source, inner_target)
            os.utime(inner_target, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(inner_target)
    finally:
        os.close(inner_source)


def _copy_attributes(status: os.stat_result, source: int, target: int) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if os.geteuid() == 0:
        os.fchown(target, status.st_uid, status.st_gid)
    elif stat.S_ISDIR(status.st_mode):
        # An owner must be able to go on below it.
        mode |= stat.S_IRWXU
    os.fchmod(target, mode)
    for name in os.listxattr(source):
        if name.startswith("user."):
            os.setxattr(target, name, os.getxattr(source, name))


def _copy_symbolic_link(source: int, target: int, name: bytes) -> None:
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    if os.geteuid() == 0:
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)
