"""The rights that an ACL gives the group, and the mode that allows no more without it."""

import struct

import pytest

from turku.core.filesystem import posix_acl

NOBODY = 0xFFFFFFFF


def acl(*entries: tuple[int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, may, NOBODY) for tag, may in entries)


@pytest.mark.parametrize(
    ("value", "group"),
    [
        (acl((1, 7), (2, 6), (4, 0), (16, 6), (32, 0)), 0),
        (acl((1, 7), (4, 7), (16, 5), (32, 0)), 5),
        (acl((1, 7), (4, 4), (16, 7), (32, 0)), 4),
        (posix_acl.SAMPLE, 4),
        # Without a mask the mode says it itself.
        (acl((1, 7), (4, 4), (32, 0)), None),
        (b"", None),
        (b"\2\0\0\0\1", None),
        (b"\3\0\0\0" + acl((4, 0), (16, 6))[4:], None),
    ],
)
def test_the_group_may_what_its_entry_and_the_mask_allow(value: bytes, group: int | None) -> None:
    assert posix_acl.group_permissions(value) == group


@pytest.mark.parametrize(
    ("mode", "group", "narrowed"), [(0o660, 0, 0o600), (0o4775, 5, 0o4755), (0o640, 7, 0o640), (0o2670, 4, 0o2640)]
)
def test_a_mode_is_made_narrower_and_never_wider(mode: int, group: int, narrowed: int) -> None:
    assert posix_acl.narrowed(mode, group) == narrowed
