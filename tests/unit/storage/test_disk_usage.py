"""Space that several files share counts once, however many they are."""

import os
from collections.abc import Sequence
from pathlib import Path

from turku.core.filesystem.directory_tree import DirectoryTree
from turku.storage.fs import disk_usage
from turku.storage.fs.disk_usage import _ExtentUnion


def test_spans_that_overlap_or_repeat_count_once() -> None:
    union = _ExtentUnion()
    for begin, end in [(10, 20), (10, 20), (15, 30), (40, 50), (30, 40), (100, 101)]:
        union.add(begin, end)
    assert union.length == 41


def test_memory_is_that_of_what_is_covered() -> None:
    union = _ExtentUnion()
    for number in range(350_000):
        union.add(number % 7 * 10, number % 7 * 10 + 5)
    assert len(union._spans) <= 100_001
    assert union.length == 35


MEBIBYTE = 2**20


def sparse(path: Path, *, length: int, data_at: Sequence[int] = ()) -> None:
    with path.open("wb") as file:
        for position in data_at:
            file.seek(position)
            file.write(b"x" * 4096)
        file.truncate(length)


def test_a_copy_takes_what_lies_in_no_hole(tmp_path: Path) -> None:
    sparse(tmp_path / "begin and end", length=1000 * MEBIBYTE, data_at=[0, 1000 * MEBIBYTE - 4096])
    sparse(tmp_path / "middle", length=1000 * MEBIBYTE, data_at=[500 * MEBIBYTE])
    sparse(tmp_path / "nothing", length=2**40)
    (tmp_path / "dense").write_bytes(b"x" * 2 * MEBIBYTE)
    with DirectoryTree(tmp_path) as tree:
        expected = {b"begin and end": 8192, b"middle": 4096, b"nothing": 0, b"dense": 2 * MEBIBYTE}
        assert {path: disk_usage.copy_bytes(tree, [(path, tree.status(path).st_size)]) for path in expected} == expected


def test_a_copy_has_a_file_with_several_names_once(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).write_bytes(b"x" * 2 * MEBIBYTE)
    os.link(tmp_path / "one", tmp_path / "one too")
    files = [(name, 2 * MEBIBYTE) for name in (b"one", b"one too", b"other")]
    with DirectoryTree(tmp_path) as tree:
        assert disk_usage.copy_bytes(tree, files) == 4 * MEBIBYTE


def test_a_file_that_cannot_be_read_counts_as_recorded(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/zero")
    with DirectoryTree(tmp_path) as tree:
        assert disk_usage.copy_bytes(tree, [(b"link", 2**30), (b"gone", 7 * MEBIBYTE), (b"small", 5)]) == (
            2**30 + 7 * MEBIBYTE + 5
        )
