"""POSIX access control lists, as Linux keeps them in extended attributes."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from typing import Final

ACCESS: Final = "system.posix_acl_access"
"""The name of the attribute with a file's own list."""
DEFAULT: Final = "system.posix_acl_default"
"""The name of the attribute with what a directory's new entries get."""
_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_NOBODY = 0xFFFFFFFF
_OWNER, _USER, _GROUP, _MASK, _OTHERS = 0x01, 0x02, 0x04, 0x10, 0x20
SAMPLE: Final = _HEADER.pack(_VERSION) + b"".join(
    _ENTRY.pack(tag, permissions, 1 if tag == _USER else _NOBODY)
    for tag, permissions in ((_OWNER, 6), (_USER, 4), (_GROUP, 4), (_MASK, 4), (_OTHERS, 0))
)
"""A list that no mode can express, to find out whether any can be set."""


def group_permissions(value: bytes) -> int | None:
    """Return what the list allows its file's own group, 0 to 7; None where it is no list with a mask.

    A file with such a list has the mask where its mode has the group's permissions. Without the list that would be
    allowed to the whole group.
    """
    body = value[_HEADER.size :]
    if len(value) < _HEADER.size or len(body) % _ENTRY.size or _HEADER.unpack_from(value)[0] != _VERSION:
        return None
    found: dict[int, int] = {tag: permissions & 7 for tag, permissions, _id in _ENTRY.iter_unpack(body)}
    if _MASK not in found or _GROUP not in found:
        return None
    return found[_GROUP] & found[_MASK]


def narrowed(mode: int, group: int) -> int:
    """Return the mode with these permissions for the group, as far as it had them."""
    return mode & ~0o070 | (mode & group << 3)


def clear(directory: int) -> None:
    """Leave an open directory that was just made without the ACLs that it got from the one that it lies in."""
    for name in (ACCESS, DEFAULT):
        # By way of its path, as a descriptor may be one that only stands for it.
        with suppress(OSError):
            os.removexattr(f"/proc/self/fd/{directory}", name)
