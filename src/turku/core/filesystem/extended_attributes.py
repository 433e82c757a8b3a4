"""Extended attributes and POSIX ACLs of files, directories and links, and a digest that is the same for the same ones.

Counted are ``user.*``, ``trusted.*``, ``security.*`` and the two ACLs. What a file system has of its own is not
(``btrfs.*``, ``system.nfs4_acl``, and ``trusted.SGI_ACL_*``, by which XFS shows an ACL a second time).

A storage without root keeps what it may not set the way rsync's ``--fake-super`` does: ``user.rsync.security.x`` for
``security.x``, and ACLs in ``user.rsync.%aacl`` and ``user.rsync.%dacl``. All of it is read as the machine had it, so
that every storage and the machine itself compute the same digest.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import xxhash

from turku.core.filesystem import posix_acl

ACCESS_ACL, DEFAULT_ACL = posix_acl.ACCESS, posix_acl.DEFAULT
DIGEST_BYTES = 16
_KEPT = ("user.", "trusted.", "security.")
_MADE_UP = "trusted.SGI_ACL_"
LABEL = "security.selinux"
_SELINUX = Path("/sys/fs/selinux/enforce")
_PREFIX = "user.rsync."
_RESERVED = f"{_PREFIX}%"
"""rsync's own notes of owner, mode and ACLs. It never sends them as attributes."""
_MOVED = (f"{_PREFIX}trusted.", f"{_PREFIX}security.")
_FAKED_ACLS = {f"{_RESERVED}aacl": ACCESS_ACL, f"{_RESERVED}dacl": DEFAULT_ACL}

# rsync's form (acls.c): what user, group, mask and others may, then id and permissions of each named entry.
_FAKED_HEAD = struct.Struct("<IIII")
_FAKED_ENTRY = struct.Struct("<II")
_NO_ENTRY = 0x80
_IS_USER = 0x80000000

Target = int | bytes
"""An open file or directory, or a path whose last name is not followed (``path_of``)."""
Pair = tuple[str, bytes]


def path_of(directory: int, name: bytes) -> bytes:
    """Return a path for the name in an open directory; attributes have no call that takes the two."""
    return b"/proc/self/fd/%d/%b" % (directory, name)


def names(target: Target) -> list[str]:
    """Return the names of all attributes; none where the file system keeps none. Raises OSError."""
    try:
        return os.listxattr(target, follow_symlinks=isinstance(target, int))
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise


def are_labelled_here() -> bool:
    """Return True where SELinux gives each file of this host a label."""
    return _SELINUX.exists()


def has_kept_label(target: Target) -> bool:
    """Return True where a stored file has a label of SELinux that was the machine's. Raises OSError."""
    listed = names(target)
    return f"{_PREFIX}{LABEL}" in listed or (LABEL in listed and not are_labelled_here())


def is_faked(listed: Iterable[str]) -> bool:
    """Return True where the names show that rsync keeps owner, mode or ACLs of the file in attributes."""
    return any(name.startswith(_RESERVED) for name in listed)


def digest_of(target: Target, *, without: Collection[str] = ()) -> bytes | None:
    """Return the digest of what an open file, or a path, has on this machine; None for nothing. Raises OSError.

    Attributes ``without`` which it is to be computed do not count.
    """
    listed = [name for name in names(target) if name not in without]
    return digest(pairs(target, listed)) if listed else None


def digest(attributes: Iterable[Pair]) -> bytes | None:
    """Return the xxh128 of pairs that are sorted by name; None for none. Raises what reading the pairs does."""
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

    ``faked_mode`` is the file's mode on the machine where rsync's attributes alone are the machine's: what else such a
    file has is the storage's. Values are read one by one, as a file can have a lot of them. Raises OSError.
    """
    for its_name, name in sorted(shown(listed, is_faked=faked_mode is not None)):
        try:
            value = os.getxattr(target, name, follow_symlinks=isinstance(target, int))
        except OSError as error:
            if error.errno == errno.ENODATA:
                # It went meanwhile.
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
    """Yield the names that attributes have on the machine, each with the one that it has here.

    ``is_faked`` says that rsync's attributes alone are the machine's.
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
    """Return whether an attribute of this name is a file's own, which goes where the file goes."""
    return name in (ACCESS_ACL, DEFAULT_ACL) or (name.startswith(_KEPT) and not name.startswith(_MADE_UP))


def acl_of_rsync(value: bytes, mode: int, *, is_access: bool) -> bytes:
    """Return an ACL that rsync keeps in an attribute in the kernel's form; the value itself where it is none.

    rsync leaves out of an access ACL what the ``mode`` of the file says already.
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
    """Return what an access ACL, kept under ``name``, allows its file's group (0 to 7), or None if the mode says it."""
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
    """Return an access ACL in one order of its entries; nothing for one that says no more than the mode."""
    entries = posix_acl.entries_of(value)
    if entries is None:
        return value
    named = (posix_acl.USER, posix_acl.NAMED_GROUP)
    permissions = {tag: allowed for tag, allowed, _number in entries if tag not in named}
    group = permissions.get(posix_acl.GROUP)
    if len(permissions) == len(entries) and permissions.get(posix_acl.MASK, group) == group:
        return b""
    return posix_acl.packed(entries)
