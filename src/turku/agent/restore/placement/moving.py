"""Moving one received entry to its place: by a rename, or by a copy onto another file system."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from turku.agent.restore import file_metadata
from turku.agent.restore.file_metadata import EVERY_KIND
from turku.agent.restore.placement.scope import PlacementScope
from turku.core.filesystem import directory_tree, holes, posix_acl, removal


def move(scope: PlacementScope, inner: int, outer: int, path: bytes, received: os.stat_result) -> None:
    """Move an entry that is not a directory. ``inner`` and ``outer`` are its open directories in tree and target.

    Raises OSError.
    """
    name = path.rpartition(b"/")[2]
    try:
        os.rename(name, name, src_dir_fd=inner, dst_dir_fd=outer)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_across(scope, inner, outer, path, received)


def move_directory(inner: int, outer: int, name: bytes) -> bool:
    """Move a directory with all its content by one rename. Return False where it lies on another file system.

    A directory that its owner, not being root, may not write to can be moved as well. Raises OSError.
    """
    try:
        _rename_directory(inner, outer, name)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def _rename_directory(inner: int, outer: int, name: bytes) -> None:
    try:
        os.rename(name, name, src_dir_fd=inner, dst_dir_fd=outer)
    except PermissionError:
        with directory_tree.opened_directory(inner, name) as directory:
            mode = stat.S_IMODE(os.fstat(directory).st_mode)
            removal.make_writable(directory)
            os.rename(name, name, src_dir_fd=inner, dst_dir_fd=outer)
            os.fchmod(directory, mode)


def copy_file(
    source: int, directory: int, name: bytes, wanted: os.stat_result, attributes: dict[str, bytes]
) -> list[str]:
    """Copy an open file with its holes to a new name. Return the attributes that could not be set. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        holes.copy_content(source, descriptor)
        return file_metadata.apply(descriptor, wanted, attributes, has={}, removed=())
    finally:
        os.close(descriptor)


def _copy_across(scope: PlacementScope, inner: int, outer: int, path: bytes, received: os.stat_result) -> None:
    """Move an entry onto another file system, which is mounted in the target."""
    name = path.rpartition(b"/")[2]
    attributes = file_metadata.read(file_metadata.proc_path(inner, name), EVERY_KIND)
    with _scratch_directory(outer, scope.staging.name) as scratch:
        if stat.S_ISREG(received.st_mode):
            source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=inner)
            try:
                scope.report_failed(path, copy_file(source, scratch, name, received, attributes))
            finally:
                os.close(source)
        else:
            if stat.S_ISLNK(received.st_mode):
                os.symlink(os.readlink(name, dir_fd=inner), name, dir_fd=scratch)
            else:
                os.mknod(name, received.st_mode, received.st_rdev, dir_fd=scratch)
            if scope.is_root:
                os.chown(name, received.st_uid, received.st_gid, dir_fd=scratch, follow_symlinks=False)
            if not stat.S_ISLNK(received.st_mode):
                way = os.fsdecode(file_metadata.proc_path(scratch, name))
                failed = file_metadata.apply(way, received, attributes, has={}, removed=(), sets_owner=False)
                scope.report_failed(path, failed)
            times = (received.st_atime_ns, received.st_mtime_ns)
            os.utime(name, ns=times, dir_fd=scratch, follow_symlinks=False)
        os.rename(name, name, src_dir_fd=scratch, dst_dir_fd=outer)


@contextmanager
def _scratch_directory(directory: int, prefix: bytes) -> Iterator[int]:
    """Make a directory in the open one for the length of the block. Nobody else can change its content.

    A user who may write to the open directory could otherwise replace what is made there by a link. Raises OSError.
    """
    name = prefix + b"-" + os.urandom(4).hex().encode()
    os.mkdir(name, 0o700, dir_fd=directory)
    try:
        scratch = os.open(name, directory_tree.DIRECTORY_FLAGS, dir_fd=directory)
        try:
            found = os.fstat(scratch)
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise OSError(errno.EPERM, "somebody else changes the directory meanwhile", os.fsdecode(name))
            posix_acl.clear(scratch)
            yield scratch
        finally:
            os.close(scratch)
    finally:
        with suppress(OSError):
            removal.remove(directory, name)
