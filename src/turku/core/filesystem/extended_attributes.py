"""Extended attributes and POSIX ACLs of files, directories and links, and a digest of them.

``user.*``, ``trusted.*``, ``security.*`` and the two ACLs count. Attributes of the file system itself do not
(``btrfs.*``, ``system.nfs4_acl``, and ``trusted.SGI_ACL_*``, by which XFS shows an ACL a second time).

A storage without root keeps attributes that it may not set as rsync's ``--fake-super`` does: ``user.rsync.security.x``
for ``security.x``, and ACLs in ``user.rsync.%aacl`` and ``user.rsync.%dacl``. They are read as the machine had them, so
that every storage and the machine itself compute the same digest.
"""

import errno
import os
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import xxhash

from turku.core.filesystem import posix_acl

ACCESS_ACL, DEFAULT_ACL = posix_acl.ACCESS, posix_acl.DEFAULT
_KEPT = ("user.", "trusted.", "security.")
_MADE_UP = "trusted.SGI_ACL_"
LABEL = "security.selinux"
_SELINUX = Path("/sys/fs/selinux/enforce")
_PREFIX = "user.rsync."
_RESERVED = f"{_PREFIX}%"
"""Prefix of rsync's own notes of owner, mode and ACLs. It never sends them as attributes."""
_MOVED = (f"{_PREFIX}trusted.", f"{_PREFIX}security.")
_FAKED_ACLS = {f"{_RESERVED}aacl": ACCESS_ACL, f"{_RESERVED}dacl": DEFAULT_ACL}

# rsync's form (acls.c): permissions of user, group, mask and others, then id and permissions of each named entry.
_FAKED_HEAD = struct.Struct("<IIII")
_FAKED_ENTRY = struct.Struct("<II")
_NO_ENTRY = 0x80
_IS_USER = 0x80000000

Target = int | bytes
"""An open file or directory, or a path whose last name is not followed (``path_of``)."""
Pair = tuple[str, bytes]


def path_of(directory: int, name: bytes) -> bytes:
    """Return a path for the name in an open directory. Calls for attributes do not take the two."""
    return b"/proc/self/fd/%d/%b" % (directory, name)


def names(target: Target) -> list[str]:
    """Return the names of all attributes, or none on a file system without attributes. Raises OSError."""
    try:
        return os.listxattr(target, follow_symlinks=isinstance(target, int))
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise


def are_labelled_here() -> bool:
    """Return True when SELinux labels each file of this host."""
    return _SELINUX.exists()


def has_kept_label(target: Target) -> bool:
    """Return True when a stored file has an SELinux label of the machine. Raises OSError."""
    listed = names(target)
    return f"{_PREFIX}{LABEL}" in listed or (LABEL in listed and not are_labelled_here())


def is_faked(listed: Iterable[str]) -> bool:
    """Return True when the names show that rsync keeps owner, mode or ACLs of the file in attributes."""
    return any(name.startswith(_RESERVED) for name in listed)


def digest_of(target: Target, *, without: Collection[str] = ()) -> bytes | None:
    """Return the digest of the attributes of an open file or a path on this machine, or None without attributes.

    Attributes named in ``without`` do not count. Raises OSError.
    """
    listed = [name for name in names(target) if name not in without]
    return digest(pairs(target, listed)) if listed else None


def digest(attributes: Iterable[Pair]) -> bytes | None:
    """Return the xxh128 of pairs that are sorted by name, or None for no pairs. Raises what reading them raises."""
    hasher = None
    for name, value in attributes:
        if hasher is None:
            hasher = xxhash.xxh128()
        encoded = os.fsencode(name)
        hasher.update(struct.pack("<II", len(encoded), len(value)) + encoded)
        hasher.update(value)
    return None if hasher is None else hasher.digest()


def pairs(target: Target, listed: Sequence[str], *, faked_mode: int | None = None) -> Iterator[Pair]:
    """Yield names and values as the machine has them, sorted by name. ``listed`` are the names from ``names``.

    ``faked_mode`` is the file's mode on the machine, for a file whose machine attributes are only those of rsync. Its
    other attributes are the storage's. Values are read one by one, because a file can have many. Raises OSError.
    """
    for its_name, name in sorted(shown(listed, is_faked=faked_mode is not None)):
        try:
            value = os.getxattr(target, name, follow_symlinks=isinstance(target, int))
        except OSError as error:
            if error.errno == errno.ENODATA:
                # It was removed meanwhile.
                continue
            raise
        if name in _FAKED_ACLS:
            value = acl_of_rsync(value, 0 if faked_mode is None else faked_mode, is_access=its_name == ACCESS_ACL)
        if its_name == ACCESS_ACL:
            value = _without_mode_bits(value)
            if not value:
                continue
        elif its_name == DEFAULT_ACL:
            value = _sorted_acl(value)
        yield its_name, value


def shown(listed: Iterable[str], *, is_faked: bool) -> Iterator[tuple[str, str]]:
    """Yield the names of attributes on the machine, each with its name here.

    With ``is_faked``, only rsync's attributes come from the machine.
    """
    for name in listed:
        if name.startswith(_PREFIX):
            if name.startswith(_MOVED):
                yield name.removeprefix(_PREFIX), name
            elif not name.startswith(_RESERVED):
                yield name, name
            elif is_faked and name in _FAKED_ACLS:
                yield _FAKED_ACLS[name], name
        elif name.startswith("user.") or (not is_faked and is_kept(name)):
            yield name, name


def is_kept(name: str) -> bool:
    """Return True when an attribute of this name belongs to the file and is copied with it."""
    return name in (ACCESS_ACL, DEFAULT_ACL) or (name.startswith(_KEPT) and not name.startswith(_MADE_UP))


def acl_of_rsync(value: bytes, mode: int, *, is_access: bool) -> bytes:
    """Return an ACL of one of rsync's attributes in the kernel's form. Return the value itself if it is not an ACL.

    In an access ACL, rsync omits the entries that the ``mode`` of the file has already.
    """
    if len(value) < _FAKED_HEAD.size or (len(value) - _FAKED_HEAD.size) % _FAKED_ENTRY.size:
        return value
    user, group, mask, other = _FAKED_HEAD.unpack_from(value)
    named = list(_FAKED_ENTRY.iter_unpack(value[_FAKED_HEAD.size :]))
    if is_access:
        user = mode >> 6 if user == _NO_ENTRY else user
        group = mode >> 3 if group == _NO_ENTRY else group
        mask = mode >> 3 if mask == _NO_ENTRY and named else mask
        other = mode if other == _NO_ENTRY else other
    entries = [
        (posix_acl.USER if access & _IS_USER else posix_acl.NAMED_GROUP, access & 7, each) for each, access in named
    ]
    modes = {posix_acl.OWNER: user, posix_acl.GROUP: group, posix_acl.MASK: mask, posix_acl.OTHERS: other}
    entries += [(tag, bits & 7, posix_acl.NOBODY) for tag, bits in modes.items() if bits != _NO_ENTRY]
    return posix_acl.packed(entries)


def group_permissions(name: str, value: bytes) -> int | None:
    """Return the group permissions (0 to 7) of the access ACL kept under ``name``, or None if the mode has them."""
    if name not in _FAKED_ACLS:
        return posix_acl.group_permissions(value)
    if len(value) < _FAKED_HEAD.size:
        return None
    _user, group, _mask, _other = _FAKED_HEAD.unpack_from(value)
    return None if group & _NO_ENTRY else group & 7


def _sorted_acl(value: bytes) -> bytes:
    entries = posix_acl.entries_of(value)
    return value if entries is None else posix_acl.packed(entries)


def _without_mode_bits(value: bytes) -> bytes:
    """Return an access ACL with sorted entries, or nothing if it says no more than the mode."""
    entries = posix_acl.entries_of(value)
    if entries is None:
        return value
    named = (posix_acl.USER, posix_acl.NAMED_GROUP)
    permissions = {tag: allowed for tag, allowed, _number in entries if tag not in named}
    group = permissions.get(posix_acl.GROUP)
    if len(permissions) == len(entries) and permissions.get(posix_acl.MASK, group) == group:
        return b""
    return posix_acl.packed(entries)
