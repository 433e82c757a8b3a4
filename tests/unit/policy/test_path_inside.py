"""A path from the network stays in its tree."""

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turku.errors import InvalidValue
from turku.policy import names


@pytest.mark.parametrize(
    ("given_path", "inside"),
    [
        (b"a/b", b"a/b"),
        (b"./a//b/", b"a/b"),
        (b"", b""),
        (b".", b""),
        (b"a/./b", b"a/b"),
        (b"..a/b..", b"..a/b.."),
        (b"caf\xe9/two\nlines", b"caf\xe9/two\nlines"),
    ],
)
def test_a_path_in_a_tree_has_one_form(given_path: bytes, inside: bytes) -> None:
    assert names.path_inside(given_path) == inside


@pytest.mark.parametrize("path", [b"/", b"/etc", b"..", b"a/..", b"a/../b", b"a\0b", b"x" * 256, b"x/" * 2100])
def test_a_path_that_leads_out_or_is_none_is_refused(path: bytes) -> None:
    with pytest.raises(InvalidValue):
        names.path_inside(path)


@given(st.lists(st.sampled_from([b"a", b"..", b".", b"", b"b c", b"\xff"]), max_size=6).map(b"/".join))
def test_an_accepted_path_never_leaves_the_tree(path: bytes) -> None:
    try:
        inside = names.path_inside(path)
    except InvalidValue:
        return
    joined = posixpath.normpath(b"/tree/" + inside)
    assert joined == b"/tree" or joined.startswith(b"/tree/")
    assert names.path_inside(inside) == inside
