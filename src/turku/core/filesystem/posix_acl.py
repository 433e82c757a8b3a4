"""POSIX access control lists, as Linux keeps them in extended attributes."""

import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

ACCESS: Final = "system.posix_acl_access"
"""Name of the attribute with the access ACL of a file."""
DEFAULT: Final = "system.posix_acl_default"
"""Name of the attribute with the default ACL of a directory, which its new entries get."""
OWNER, USER, GROUP, NAMED_GROUP, MASK, OTHERS = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
"""Tags of entries."""
NOBODY: Final = 0xFFFFFFFF
"""Id of an entry that is not about a certain user or group."""
Entry = tuple[int, int, int]
"""Tag, permissions, and the id of a user or group."""
# linux/posix_acl_xattr.h: a version, then the entries.
_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")


def packed(entries: Iterable[Entry]) -> bytes:
    """Return the ACL of these entries, sorted."""
    ordered = sorted(entries, key=lambda entry: (entry[0], entry[2]))
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in ordered)


def entries_of(value: bytes) -> list[Entry] | None:
    """Return the entries of an ACL, or None if the value is not an ACL."""
    body = value[_HEADER.size :]
    if len(value) < _HEADER.size or len(body) % _ENTRY.size or _HEADER.unpack_from(value)[0] != _VERSION:
        return None
    return list(_ENTRY.iter_unpack(body))


SAMPLE: Final = packed(((OWNER, 6, NOBODY), (USER, 4, 1), (GROUP, 4, NOBODY), (MASK, 4, NOBODY), (OTHERS, 0, NOBODY)))
"""An ACL that no mode can express, to find out if ACLs can be set."""


def group_permissions(value: bytes) -> int | None:
    """Return the permissions of the file's own group in an ACL, 0 to 7, or None if the value is not an ACL with a mask.

    The mode of a file with such an ACL has the mask in place of the group's permissions. Without the ACL, the whole
    group would have the permissions of the mask.
    """
    entries = entries_of(value)
    if entries is None:
        return None
    found = {tag: permissions & 7 for tag, permissions, _number in entries}
    if MASK not in found or GROUP not in found:
        return None
    return found[GROUP] & found[MASK]


def narrowed(mode: int, group: int) -> int:
    """Return the mode with the group's permissions limited to these."""
    return mode & ~0o070 | (mode & group << 3)


def clear(directory: int) -> None:
    """Remove the ACLs that a new open directory inherited from its parent."""
    for name in (ACCESS, DEFAULT):
        # By its path, because the descriptor may be one of O_PATH.
        with suppress(OSError):
            os.removexattr(f"/proc/self/fd/{directory}", name)
