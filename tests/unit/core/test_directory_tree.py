"""Opening what lies below a directory, by the kernel's own walk and by ours."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from turku.core.filesystem import directory_tree, openat2, removal


@pytest.fixture(params=["openat2", "walk"])
def root(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    if request.param == "walk":
        monkeypatch.setattr(openat2, "_has_call", lambda: False)
    inner = tmp_path / "root" / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "file").write_text("content")
    (tmp_path / "outside" / "b").mkdir(parents=True)
    (tmp_path / "outside" / "b" / "file").write_text("outside")
    (tmp_path / "root" / "link").symlink_to("a")
    (tmp_path / "root" / "away").symlink_to("../outside")
    (tmp_path / "root" / "a" / "b" / "last").symlink_to("file")
    descriptor = os.open(tmp_path / "root", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_a_directory_is_opened(root: int) -> None:
    for path, names in ((b"", {"a", "link", "away"}), (b"a/b", {"file", "last"})):
        descriptor = directory_tree.open_directory(root, path)
        assert set(os.listdir(descriptor)) == names
        os.close(descriptor)


@pytest.mark.parametrize(
    "path",
    [b"link", b"link/b", b"away", b"away/b", b"a/b/file", b"a/../a", b"..", b"/etc", b"a//b", b"./a", b"a/b/last"],
)
def test_nothing_is_opened_by_way_of_a_link_or_upwards(root: int, path: bytes) -> None:
    with pytest.raises(OSError):
        directory_tree.open_directory(root, path)


def test_a_file_is_opened_and_nothing_else(root: int) -> None:
    descriptor = directory_tree.open_file(root, b"a/b/file")
    assert os.read(descriptor, 100) == b"content"
    os.close(descriptor)
    for path in (b"a/b/last", b"link/b/file", b"away/b/file", b"a/b"):
        with pytest.raises(OSError):
            directory_tree.open_file(root, path)
        assert path == b"a/b/last" or path == b"a/b" or directory_tree.status(root, path) is None


def test_a_tree_is_removed_whatever_its_depth_and_what_its_links_lead_to_stays(root: int, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "root" / "a", os.O_RDONLY)
    os.symlink("../../outside", "away", dir_fd=descriptor)
    for _ in range(1200):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    assert removal.remove(root, b"a") == 1200 + 5
    assert removal.remove(root, b"away") == 1
    assert removal.remove(root, b"never") == 0
    assert os.listdir(root) == ["link"]
    assert (tmp_path / "outside" / "b" / "file").read_text() == "outside"


def test_directories_are_made_and_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    os.close(directory_tree.open_or_create(tmp_path / "new" / "inner", mode=0o700))
    assert (tmp_path / "new" / "inner").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "link", tmp_path / "link" / "inner"):
        with pytest.raises(NotADirectoryError):
            directory_tree.open_or_create(path, mode=0o700)
    assert list((tmp_path / "real").iterdir()) == []
