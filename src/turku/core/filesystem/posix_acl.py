"""POSIX access control lists, as Linux keeps them in extended attributes."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

ACCESS: Final = "system.posix_acl_access"
"""The name of the attribute with a file's own list."""
DEFAULT: Final = "system.posix_acl_default"
"""The name of the attribute with what a directory's new entries get."""
OWNER, USER, GROUP, NAMED_GROUP, MASK, OTHERS = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
"""Tags of entries."""
NOBODY: Final = 0xFFFFFFFF
"""The number of an entry that is about no certain user or group."""
Entry = tuple[int, int, int]
"""Tag, permissions, and the number of a user or group."""
# linux/posix_acl_xattr.h: a version, then the entries.
_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")


def packed(entries: Iterable[Entry]) -> bytes:
    """Return a list of these entries, in one order whatever theirs is."""
    ordered = sorted(entries, key=lambda entry: (entry[0], entry[2]))
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in ordered)


def entries_of(value: bytes) -> list[Entry] | None:
    """Return the entries of a list; None for what is none."""
    body = value[_HEADER.size :]
    if len(value) < _HEADER.size or len(body) % _ENTRY.size or _HEADER.unpack_from(value)[0] != _VERSION:
        return None
    return list(_ENTRY.iter_unpack(body))


SAMPLE: Final = packed(((OWNER, 6, NOBODY), (USER, 4, 1), (GROUP, 4, NOBODY), (MASK, 4, NOBODY), (OTHERS, 0, NOBODY)))
"""A list that no mode can express, to find out whether any can be set."""


def group_permissions(value: bytes) -> int | None:
    """Return what the list allows its file's own group, 0 to 7; None where it is no list with a mask.

    A file with such a list has the mask where its mode has the group's permissions. Without the list that would be
    allowed to the whole group.
    """
    entries = entries_of(value)
    if entries is None:
        return None
    found = {tag: permissions & 7 for tag, permissions, _number in entries}
    if MASK not in found or GROUP not in found:
        return None
    return found[GROUP] & found[MASK]


def narrowed(mode: int, group: int) -> int:
    """Return the mode with these permissions for the group, as far as it had them."""
    return mode & ~0o070 | (mode & group << 3)


def clear(directory: int) -> None:
    """Leave an open directory that was just made without the ACLs that it got from the one that it lies in."""
    for name in (ACCESS, DEFAULT):
        # By way of its path, as a descriptor may be one that only stands for it.
        with suppress(OSError):
            os.removexattr(f"/proc/self/fd/{directory}", name)
