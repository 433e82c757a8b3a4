"""Paths as text: entries of trees, and the one rule for a path inside a directory."""

import pytest

from turku.core.filesystem import paths


@pytest.mark.parametrize(
    ("path", "directory", "is_within"),
    [
        *(("/srv/restore", "/srv/restore", True), ("/srv/restore/a/b", "/srv/restore", True)),
        *(("/srv/restored", "/srv/restore", False), ("/srv", "/srv/restore", False), ("/", "/srv", False)),
        *(("/etc", "/", True), ("/", "/", True), ("/srv/x", "/srv/", True)),
        *(("a/b", "", True), ("", "", True), ("", "a", False), ("a", "a/b", False), ("ab", "a", False)),
    ],
)
def test_a_path_is_within_a_directory_that_it_is_or_lies_below(path: str, directory: str, is_within: bool) -> None:
    assert paths.is_within(path, directory) is is_within
    assert paths.is_within(path.encode(), directory.encode()) is is_within


@pytest.mark.parametrize("path", [b"", b"/", b"/etc", b"a/", b"a//b", b".", b"..", b"a/../b", b"./a", b"a\0b"])
def test_a_path_that_could_leave_the_tree_is_no_path_of_an_entry(path: bytes) -> None:
    assert not paths.is_entry_path(path)


@pytest.mark.parametrize("path", [b"a", b"a/b", b"..a/b..", b"caf\xe9/two\nlines"])
def test_any_bytes_that_a_file_system_takes_are_a_path_of_an_entry(path: bytes) -> None:
    assert paths.is_entry_path(path)
    assert paths.joined(*paths.split(path)) == path
