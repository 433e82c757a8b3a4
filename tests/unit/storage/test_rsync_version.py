"""The rsync that receives, and the release from which on it may (threats M9)."""

import pytest

from turku.storage.rsync import version as rsync_version
from turku.storage.rsync.version import RsyncVersion


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("rsync  version 3.2.7  protocol version 32\nCopyright (C) 1996-2022\n", RsyncVersion((3, 2, 7))),
        ("rsync  version v3.5.0  protocol version 32\n", RsyncVersion((3, 5, 0))),
        ("rsync version 3.10.1 protocol version 33\n", RsyncVersion((3, 10, 1))),
        ("rsync  version 3.5.0pre1  protocol version 32\n", RsyncVersion((3, 5, 0), is_release=False)),
        ("rsync  version 3.5.0dev  protocol version 32\n", RsyncVersion((3, 5, 0), is_release=False)),
        ("rsync  version 4.0  protocol version 40\n", RsyncVersion((4, 0, 0))),
    ],
)
def test_the_version_is_read_from_the_first_line(output: str, version: RsyncVersion) -> None:
    assert rsync_version.parse(output) == version
    assert rsync_version.parse(output.encode()) == version


@pytest.mark.parametrize(
    "output",
    [
        "",
        "openrsync: protocol version 29\n",
        "something\nrsync  version 3.5.0\n",
        "rsync  version \u0663.\u0665.\u0660\n",
        b"\xff\xfe",
    ],
)
def test_an_output_of_no_rsync_has_no_version(output: str | bytes) -> None:
    assert rsync_version.parse(output) is None


@pytest.mark.parametrize(
    ("numbers", "is_old"), [((3, 2, 7), True), ((3, 4, 9), True), ((3, 5, 0), False), ((3, 10, 0), False)]
)
def test_releases_before_3_5_0_are_old(numbers: tuple[int, int, int], is_old: bool) -> None:
    assert RsyncVersion(numbers).is_old is is_old


def test_a_pre_release_of_the_first_good_one_is_old() -> None:
    assert RsyncVersion((3, 5, 0), is_release=False).is_old
    assert not RsyncVersion((3, 5, 1), is_release=False).is_old
