"""Copies that share blocks: clones of a tree, and further names of a file.

A clone is a file of its own that shares its blocks until one of the two is written to. XFS (made with ``reflink=1``,
the default of mkfs since 2018) and btrfs have clones. Where several names share a file in one tree, each name has its
own clone in the other.
"""

import errno
import fcntl
import logging
import os
import stat
import struct
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from turku.core.filesystem import holes
from turku.core.filesystem.directory_tree import CREATE_FLAGS, DirectoryTree, WalkEntry, open_file_in
from turku.core.filesystem.spool import Stack
from turku.storage.fs import attributes, tree

_FICLONE = 0x40049409
# From <linux/fs.h>: attributes of XFS, inherited by what is made in a directory.
_FSGETXATTR = 0x801C581F
_FSSETXATTR = 0x401C5820
_FSXATTR = struct.Struct("=IIIII8x")
_HAS_COW_EXTENT_SIZE = 0x00010000
_BLOCK_BYTES = 4096
_UNCLONABLE = (errno.EINVAL, errno.EXDEV, errno.EOPNOTSUPP, errno.ETXTBSY, errno.EACCES, errno.EPERM)
_LOG = logging.getLogger(__name__)


def can_clone(directory: Path) -> bool:
    """Return True if files in the directory can be cloned. Two files without a name are tried.

    Raises OSError for errors that do not tell, such as a full disk.
    """
    with ExitStack() as stack:
        try:
            descriptors = []
            for _ in range(2):
                descriptors.append(tree.create_unnamed_file(directory))
                stack.callback(os.close, descriptors[-1])
            os.write(descriptors[0], bytes(_BLOCK_BYTES))
            fcntl.ioctl(descriptors[1], _FICLONE, descriptors[0])
        except OSError as error:
            if error.errno in (*tree.SAYS_NOTHING, errno.ENOSPC, errno.EDQUOT):
                raise
            return False
    return True


def may_share_blocks(directory: Path) -> bool:
    """Return False if no two files in the directory can share blocks, and True if they can or it is not known."""
    try:
        return can_clone(directory)
    except OSError:
        return True


def clone_tree(source: Path, target: Path) -> None:
    """Clone the entries of the directory ``source`` into the empty directory ``target``, with their attributes.

    Files that cannot be read or cloned, pipes, sockets and devices are skipped: whoever syncs the clone adds them.
    Raises OSError, for example for a full disk.
    """
    left_out = 0

    def clone(each: WalkEntry, directory: int) -> None:
        nonlocal left_out
        if stat.S_ISLNK(each.status.st_mode):
            attributes.copy_link(each.directory, directory, each.name)
        elif each.is_file:
            try:
                _clone_file(each.directory, directory, each.name, each.name)
            except OSError as error:
                if error.errno not in _UNCLONABLE:
                    raise
                left_out += 1
                with suppress(FileNotFoundError):
                    os.unlink(each.name, dir_fd=directory)

    with DirectoryTree(source) as base, DirectoryTree(target) as copy:
        _copy(base, copy, clone)
    if left_out:
        _LOG.info("%s: %d files could not be cloned, and are transferred instead", source, left_out)


def clone_within(directory: int, name: bytes, clone: bytes) -> None:
    """Clone the file ``name`` of the open directory under the new name ``clone``, attributes included."""
    _clone_file(directory, directory, name, clone)


def take_content(source: int, target: int) -> None:
    """Give the open file ``target`` the content of the open file ``source`` by sharing its blocks.

    Only the list of blocks is written, so the content is never half there. Raises OSError.
    """
    size_bytes = os.fstat(source).st_size
    if size_bytes:
        fcntl.ioctl(target, _FICLONE, source)
    os.ftruncate(target, size_bytes)


def keep_changes_small(directory: Path) -> None:
    """Make writes into clones below the new directory allocate no more than the blocks written.

    XFS reserves 128 KiB for each such write, and gives back what was not needed only after half an hour. Does nothing
    on other file systems.
    """
    # Another file system, or a directory of another user. This saves space, and nothing depends on it.
    with tree.opened(directory) as descriptor, suppress(OSError):
        answer = fcntl.ioctl(descriptor, _FSGETXATTR, bytes(_FSXATTR.size))
        flags, extent_bytes, extents, project, _ = _FSXATTR.unpack(answer)
        hint = (flags | _HAS_COW_EXTENT_SIZE, extent_bytes, extents, project, os.fstatvfs(descriptor).f_bsize)
        fcntl.ioctl(descriptor, _FSSETXATTR, _FSXATTR.pack(*hint))


def _copy(base: DirectoryTree, copy: DirectoryTree, copy_entry: Callable[[WalkEntry, int], None]) -> None:
    """Copy everything below ``base`` that can be read."""
    with Stack() as directories:
        directories.push(b"")
        for each in base.walk():
            directory = copy.directory(each.path)
            if each.is_directory:
                os.mkdir(each.name, 0o700, dir_fd=directory)
                directories.push(each.full_path)
            else:
                copy_entry(each, directory)
        # Directories inside others first: adding them changed the times of the outer ones.
        while (path := directories.pop()) is not None:
            source = base.find_directory(path)
            if source is not None:
                status = os.fstat(source)
                # Without root, the owner of a clone must be able to write below it.
                mode = stat.S_IMODE(status.st_mode) | stat.S_IRWXU if os.geteuid() != 0 else None
                attributes.copy(status, source, copy.directory(path), mode=mode)


def link_or_copy(source: int, name: bytes, target: int, new_name: bytes) -> bool:
    """Make ``new_name`` in the open directory ``target`` a link to the file ``name`` of ``source``, or a copy of it.

    Returns False for a copy. Raises OSError.
    """
    try:
        os.link(name, new_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if error.errno != errno.EMLINK or not stat.S_ISREG(status.st_mode):
            raise
        _copy_file(source, target, name, new_name)
        return False
    return True


def _copy_file(source: int, target: int, name: bytes, new_name: bytes) -> None:
    def copy_content(inner_source: int, inner_target: int, size_bytes: int) -> None:
        os.ftruncate(inner_target, size_bytes)
        for begin, end in holes.data_spans(inner_source):
            position = begin
            # The kernel shares blocks where the file system can.
            while position < end and (
                count := os.copy_file_range(inner_source, inner_target, end - position, position, position)
            ):
                position += count

    _make_file(source, target, name, new_name, copy_content)


def _clone_file(source: int, target: int, name: bytes, clone: bytes) -> None:
    def clone_content(inner_source: int, inner_target: int, size_bytes: int) -> None:
        if size_bytes:
            fcntl.ioctl(inner_target, _FICLONE, inner_source)

    _make_file(source, target, name, clone, clone_content)


def _make_file(source: int, target: int, name: bytes, new_name: bytes, fill: Callable[[int, int, int], None]) -> None:
    """Create a file in the directory ``target``. ``fill`` writes its content, and all else is that of ``name``."""
    inner_source = open_file_in(source, name)
    try:
        status = os.fstat(inner_source)
        inner_target = os.open(new_name, CREATE_FLAGS, 0o600, dir_fd=target)
        try:
            fill(inner_source, inner_target, status.st_size)
            attributes.copy(status, inner_source, inner_target)
        finally:
            os.close(inner_target)
    finally:
        os.close(inner_source)
