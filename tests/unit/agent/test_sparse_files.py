"""The files that a storage may have holes made in."""

import errno
import os
from pathlib import Path

import pytest

from turku.agent.restore.answers import SparseFiles
from turku.agent.restore.result import ProblemList
from turku.core.filesystem import directory_tree, holes
from turku.errors import MalformedMessage
from turku.protocol.restore_messages import WITH_HOLES_LIMIT


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    directory = tmp_path / "tree"
    (directory / "inner").mkdir(parents=True)
    (directory / "inner" / "zeros").write_bytes(bytes(20_000))
    (tmp_path / "outside").write_bytes(bytes(20_000))
    (directory / "link").symlink_to("../outside")
    (directory / "up").symlink_to("..")
    os.mkfifo(directory / "pipe")
    return directory


def make(tree: Path, *paths: str) -> ProblemList:
    dug, problems = SparseFiles(), ProblemList()
    dug.add(paths)
    descriptor = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        dug.dig_holes(descriptor, problems)
    finally:
        os.close(descriptor)
    return problems


def test_files_of_the_tree_get_their_holes(tree: Path) -> None:
    assert make(tree, "inner/zeros").count == 0
    assert holes.has_holes((tree / "inner" / "zeros").stat())
    assert (tree / "inner" / "zeros").read_bytes() == bytes(20_000)


def test_no_link_is_followed_and_what_is_no_file_is_left_alone(tree: Path) -> None:
    assert make(tree, "link", "up/outside", "pipe", "inner", "missing").count == 0
    assert not holes.has_holes((tree.parent / "outside").stat())


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "inner/../../outside"])
def test_a_path_that_leads_out_is_refused(tree: Path, path: str) -> None:
    with pytest.raises(MalformedMessage):
        make(tree, path)


def test_too_many_are_refused(tree: Path) -> None:
    with pytest.raises(MalformedMessage, match="is too long"):
        make(tree, *(f"file-{number}" for number in range(WITH_HOLES_LIMIT + 1)))
    with pytest.raises(MalformedMessage, match="is too long"):
        make(tree, *(f"{number}/{'x' * 200}/{'y' * 200}" for number in range(25_000)))


def test_a_file_that_may_not_be_written_to_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(directory_tree, "open_file", refuse)
    assert [text for text in make(tree, "inner/zeros").named if "without its holes" in text]
