"""Directories that a restore may be asked into, and what lies inside of them."""

from __future__ import annotations

import pytest

from turku.errors import InvalidValue
from turku.policy.restore_place import lies_inside, target_directory


@pytest.mark.parametrize(
    ("text", "directory"),
    [("/", "/"), ("/srv", "/srv"), ("//srv/./x//", "/srv/x"), ("/srv/a b/ü", "/srv/a b/ü"), ("/srv/..x", "/srv/..x")],
)
def test_a_lawful_one_is_made_plain(text: str, directory: str) -> None:
    assert target_directory(text) == directory


@pytest.mark.parametrize(
    "text", ["", "srv", "~/x", "/srv/../etc", "/..", "/srv/x\n", "/srv/\0", "/srv/\u202ex", "/" + "x" * 4001, "/\ud800"]
)
def test_others_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        target_directory(text)


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/srv/restore", True),
        ("/srv/restore/x", True),
        ("/srv/restore-not", False),
        ("/srv", False),
        ("/", False),
        ("/other/x/y", True),
        ("/others", False),
    ],
)
def test_what_lies_inside(path: str, inside: bool) -> None:
    assert lies_inside(path, ["/srv/restore", "/other"]) is inside


def test_everything_lies_inside_of_the_root_and_nothing_inside_of_none() -> None:
    assert lies_inside("/etc", ["/"])
    assert not lies_inside("/etc", [])
