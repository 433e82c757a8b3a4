"""Owner, mode, times and extended attributes of stored files.

A storage without root keeps the machine's values in extended attributes (rsync's ``--fake-super``). This module copies
attributes between open files, and reads them as the machine has them.
"""

import errno
import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress

from turku.core.filesystem import extended_attributes, posix_acl
from turku.core.filesystem.extended_attributes import is_kept

_FAKED_ATTRIBUTE = "user.rsync.%stat"
_FAKED = re.compile(rb"([0-7]{1,7}) \d+,\d+ (\d{1,10}):(\d{1,10})")
_LINK_LIMIT_BYTES = 4096
_CANNOT_BE_SET = (errno.EPERM, errno.EACCES, errno.ENOTSUP)


def copy(status: os.stat_result, source: int, target: int, *, mode: int | None = None) -> None:
    """Copy owner, mode, extended attributes and times from the open ``source`` to the open ``target``.

    ``status`` is that of ``source``. ``mode`` replaces its mode where it is given. Times are set last. Attributes that
    the kernel reserves for others are skipped where they cannot be set.
    """
    if os.geteuid() == 0:
        os.fchown(target, status.st_uid, status.st_gid)
    # An ACL sets the mode, and the mode sets an ACL's mask: set a mode without an ACL first, then the mode that is
    # wanted.
    copy_extended(source, target)
    os.fchmod(target, stat.S_IMODE(status.st_mode) if mode is None else mode)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def copy_extended(source: int, target: int) -> None:
    """Make the extended attributes of the open ``target`` those of ``source``, ACLs included."""
    try:
        wanted = os.listxattr(source)
        for name in set(os.listxattr(target)) - set(wanted):
            if is_kept(name):
                _remove(target, name)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return
        raise
    for name in wanted:
        if not is_kept(name):
            continue
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if name.startswith("user.") or error.errno not in _CANNOT_BE_SET:
                raise


def _remove(target: int, name: str) -> None:
    try:
        os.removexattr(target, name)
    except OSError as error:
        if name.startswith("user.") or error.errno not in (*_CANNOT_BE_SET, errno.ENODATA):
            raise


def extended(descriptor: int) -> dict[str, bytes]:
    """Return the extended attributes of an open file, or empty where the file system has none."""
    try:
        return {name: os.getxattr(descriptor, name) for name in os.listxattr(descriptor) if is_kept(name)}
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise


def copy_link(source: int, target: int, name: bytes) -> None:
    """Copy the symbolic link ``name`` from the open directory ``source`` to ``target``, with owner and times."""
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    if os.geteuid() == 0:
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def faked_in(target: int | bytes, listed: Sequence[str]) -> tuple[int, int, int] | None:
    """Return the mode with its kind, the uid and the gid that rsync keeps in attributes, or None where it keeps none.

    ``target`` is an open file or a path, ``listed`` the names of its attributes.
    """
    if _FAKED_ATTRIBUTE not in listed:
        return None
    try:
        match = _FAKED.fullmatch(os.getxattr(target, _FAKED_ATTRIBUTE, follow_symlinks=isinstance(target, int)))
    except OSError:
        return None
    return None if match is None else (int(match[1], 8), int(match[2]), int(match[3]))


def link_target(directory: int, name: bytes, *, is_faked: bool) -> bytes | None:
    """Return the target of a symbolic link, even if it is kept as a file, or None where it cannot be read."""
    with suppress(OSError):
        if not is_faked:
            return os.readlink(name, dir_fd=directory)
        # Links have no attributes, so rsync keeps one as a file whose content is the link's target.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        try:
            return os.read(descriptor, _LINK_LIMIT_BYTES)
        finally:
            os.close(descriptor)
    return None


def beyond_mode(directory: int, name: bytes, *, is_faked: bool) -> tuple[list[str], int | None]:
    """Return the names of the ACLs and attributes of ``name``, and the rights that an ACL gives the group.

    The rights are None without an ACL. ``is_faked`` says that the tree keeps what only root may set in attributes of
    rsync's own. The names are then those on the machine.
    """
    path = extended_attributes.path_of(directory, name)
    found = []
    group = None
    try:
        for its_name, kept in extended_attributes.shown(extended_attributes.names(path), is_faked=is_faked):
            found.append(its_name)
            if its_name == posix_acl.ACCESS:
                group = extended_attributes.group_permissions(kept, os.getxattr(path, kept, follow_symlinks=False))
    except OSError:
        return [], None
    return found, group
