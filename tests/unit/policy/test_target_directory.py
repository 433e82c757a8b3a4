"""Directories that a restore may be asked into."""

import pytest

from turku.errors import InvalidValue
from turku.policy.names import target_directory


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
