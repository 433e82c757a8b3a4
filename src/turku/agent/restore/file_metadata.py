"""The metadata of restored files: owner, mode, times, ACLs and extended attributes.

A file has ACLs, attributes of its users (``user.*``), and attributes that only root may set (``trusted.*``,
``security.*``). An ACL that cannot be set never leaves its file open to more people than the ACL does.
"""

import functools
import os
import secrets
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeAlias

from turku.agent.state import staging_records
from turku.core import command
from turku.core.filesystem import directory_tree, posix_acl
from turku.core.filesystem.paths import split
from turku.errors import CommandFailed
from turku.protocol.restore_messages import Settable

Attributes: TypeAlias = Mapping[str, bytes]
EVERY_KIND: Final[frozenset[Settable]] = frozenset({"acls", "attributes", "privileged"})

_ACLS = (posix_acl.ACCESS, posix_acl.DEFAULT)
_CAPABILITY = "security.capability"
_VERSION_TIMEOUT_SECONDS = 10.0


def supported_kinds(directory: Path, rsync_command: Sequence[str]) -> tuple[Settable, ...]:
    """Return the kinds of attributes that can be set on files in the directory, which may not exist yet.

    Each kind is tried on a scratch file.
    """
    while not directory.is_dir() and directory != directory.parent:
        directory = directory.parent
    can_acls, can_attributes = _rsync_capabilities(tuple(rsync_command))
    wanted: tuple[tuple[Settable, str, bytes, bool], ...] = (
        ("acls", posix_acl.ACCESS, posix_acl.SAMPLE, can_acls),
        ("attributes", "user.turku", b"1", can_attributes),
        ("privileged", "trusted.turku", b"1", can_attributes and os.geteuid() == 0),
    )
    with suppress(OSError), _scratch_file(directory) as descriptor:
        return tuple(kind for kind, name, value, can in wanted if can and _set_attribute(descriptor, name, value))
    return ()


@contextmanager
def _scratch_file(directory: Path) -> Iterator[int]:
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            descriptor = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=opened)
        except OSError:
            # Not every file system supports files without a name.
            name = f"{staging_records.PREFIX}{secrets.token_hex(16)}"
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=opened)
            os.unlink(name, dir_fd=opened)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    finally:
        os.close(opened)


@functools.lru_cache(maxsize=8)
def _rsync_capabilities(rsync_command: tuple[str, ...]) -> tuple[bool, bool]:
    """Return two flags: this rsync was built with ACLs, and with extended attributes."""
    try:
        output = command.run([*rsync_command, "--version"], timeout_seconds=_VERSION_TIMEOUT_SECONDS).stdout
    except CommandFailed:
        return False, False
    features = b" ".join(output.split())
    return b" ACLs" in features and b"no ACLs" not in features, b" xattrs" in features and b"no xattrs" not in features


def proc_path(directory: int, name: bytes) -> bytes:
    """Return a path to a name in an open directory, for system calls that take no directory descriptor."""
    return b"/proc/self/fd/%d/%b" % (directory, name)


def link_target(root: int, path: bytes) -> bytes | None:
    """Return the target of a symbolic link below an open directory, or None where there is no link."""
    above, name = split(path)
    with suppress(OSError), directory_tree.opened_directory(root, above) as directory:
        return os.readlink(name, dir_fd=directory)
    return None


def read(file: int | str | bytes, kinds: Collection[Settable]) -> dict[str, bytes]:
    """Return the file's ACLs and attributes of these kinds. No link is followed."""
    found = {}
    # Python refuses the option for a descriptor, which follows no link anyhow.
    options = {} if isinstance(file, int) else {"follow_symlinks": False}
    # For file systems without attributes, and for files that vanish meanwhile.
    with suppress(OSError):
        for name in os.listxattr(file, **options):
            if _kind(name) in kinds:
                with suppress(OSError):
                    found[name] = os.getxattr(file, name, **options)
    return found


def _kind(name: str) -> Settable | None:
    if name in _ACLS:
        return "acls"
    if name.startswith("user."):
        return "attributes"
    return "privileged" if name.startswith(("trusted.", "security.")) else None


def changes_between(has: Attributes, wanted: Attributes, removed: Collection[Settable]) -> dict[str, bytes | None]:
    """Return the attributes to set, or to remove where the value is None, so that a file has the wanted ones.

    Other attributes of the kinds ``removed`` are removed. A security label, such as SELinux's, is only ever replaced.
    """
    changes: dict[str, bytes | None] = {name: value for name, value in wanted.items() if has.get(name) != value}
    for name in has.keys() - wanted.keys():
        if _kind(name) in removed and (not name.startswith("security.") or name == _CAPABILITY):
            changes[name] = None
    return changes


def apply(
    file: int | str,
    wanted: os.stat_result,
    attributes: Attributes,
    *,
    has: Attributes,
    removed: Collection[Settable],
    sets_owner: bool = True,
) -> list[str]:
    """Set a file's owner, attributes, mode and times. Return the names of the attributes that could not be set.

    ``file`` is a descriptor, or a path through one. ``has`` are its present attributes. ``removed`` is as in
    ``changes_between``. At no moment may more people read the file than before or after. Raises OSError where owner,
    mode or times cannot be set.
    """
    is_root = os.geteuid() == 0
    mode = stat.S_IMODE(wanted.st_mode)
    changes = changes_between(has, attributes, removed)
    if sets_owner and _CAPABILITY in attributes:
        # A change of the owner removes the capability.
        changes[_CAPABILITY] = attributes[_CAPABILITY]
    if changes.keys() & set(_ACLS):
        # While an ACL is added or removed, the permissions of the group change their meaning.
        os.chmod(file, mode & ~0o6077)  # noqa: PTH101  (a descriptor, or the way to one)
    if sets_owner:
        if is_root:
            os.chown(file, wanted.st_uid, wanted.st_gid)
        else:
            with suppress(OSError):
                os.chown(file, -1, wanted.st_gid)
    failed = set_attributes(file, changes)
    os.chmod(file, safe_mode(mode, changes, failed))  # noqa: PTH101
    os.utime(file, ns=(wanted.st_atime_ns, wanted.st_mtime_ns))
    return failed


def set_attributes(file: int | str, changes: Mapping[str, bytes | None]) -> list[str]:
    """Set and remove attributes. Return the names of those for which that failed."""
    return [name for name, value in changes.items() if not _set_attribute(file, name, value)]


def safe_mode(mode: int, changes: Mapping[str, bytes | None], failed: Collection[str]) -> int:
    """Return a mode that allows nobody more than the file's ACL, where the ACL is among the failed changes."""
    if posix_acl.ACCESS not in failed:
        return mode
    value = changes[posix_acl.ACCESS]
    group = None if value is None else posix_acl.group_permissions(value)
    return posix_acl.narrowed(mode, 0 if group is None else group)


def _set_attribute(file: int | str, name: str, value: bytes | None) -> bool:
    try:
        if value is None:
            os.removexattr(file, name)
        else:
            os.setxattr(file, name, value)
    except OSError:
        return False
    return True
