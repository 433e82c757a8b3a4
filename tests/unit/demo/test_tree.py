"""The demo's copy of a tree, its bounds, and the changes made to it."""

import os
from pathlib import Path

import pytest

from turku.demo import tree
from turku.errors import UsageError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    (directory / "sub").mkdir(parents=True)
    for number in range(5):
        (directory / "sub" / f"{number}").write_text("x" * 100)
    (directory / "link").symlink_to("sub/0")
    os.mkfifo(directory / "pipe")
    (directory / os.fsdecode(b"\xff")).write_text("not UTF-8")
    return directory


def test_a_copy_has_files_links_modes_and_times(source: Path, tmp_path: Path) -> None:
    (source / "sub" / "1").chmod(0o640)
    os.utime(source / "sub", (1_000_000_000, 1_000_000_000))
    copy = tree.copy(source, tmp_path / "copy")
    assert len(copy.files) == 6
    assert copy.size_bytes == 509
    assert copy.special == 1
    assert not copy.is_partial
    assert (copy.path / "link").readlink() == Path("sub/0")
    assert (copy.path / "sub" / "1").stat().st_mode & 0o777 == 0o640
    assert (copy.path / "sub").stat().st_mtime == 1_000_000_000


def test_a_copy_stops_at_its_bounds_and_says_so(source: Path, tmp_path: Path) -> None:
    few = tree.copy(source, tmp_path / "few", files_limit=2)
    assert len(few.files) == 2
    assert few.is_partial
    small = tree.copy(source, tmp_path / "small", size_limit_bytes=350)
    assert small.size_bytes <= 350
    assert small.is_partial


def test_a_missing_or_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a directory"):
        tree.copy(tmp_path / "missing", tmp_path / "copy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no file"):
        tree.copy(tmp_path / "empty", tmp_path / "copy")


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_changes_are_made_as_far_as_there_are_files(tmp_path: Path, count: int) -> None:
    (tmp_path / "source").mkdir()
    for number in range(count):
        (tmp_path / "source" / f"{number}").write_text("before")
    copy = tree.copy(tmp_path / "source", tmp_path / "copy")
    changes = tree.change(copy, tree.text_file(copy))
    assert (copy.path / changes.changed).read_text() != "before"
    assert (copy.path / changes.added).exists()
    assert (changes.renamed is not None) == (count > 1)
    assert (changes.deleted is not None) == (count > 2)
    if changes.renamed is not None:
        assert not (copy.path / changes.renamed[0]).exists()
        assert (copy.path / changes.renamed[1]).read_text() == "before"
    if changes.deleted is not None:
        assert not (copy.path / changes.deleted).exists()


def test_sharing_counts_hard_links_of_the_same_name(tmp_path: Path) -> None:
    older, newer = tmp_path / "older", tmp_path / "newer"
    older.mkdir()
    newer.mkdir()
    (older / "same").write_text("same")
    (newer / "same").hardlink_to(older / "same")
    (older / "changed").write_text("old")
    (newer / "changed").write_text("newer")
    (newer / "new").write_text("new")
    assert tree.sharing(newer, newer, older) == tree.Sharing(files=3, shared_files=1, own_bytes=8)
