"""Holes of a file are found, and kept by copies."""

import os
from pathlib import Path

import pytest

from turku.core.filesystem import holes

MEBIBYTE = 2**20


def make(path: Path, *, length: int, data_at: list[int]) -> None:
    with path.open("wb") as file:
        for position in data_at:
            file.seek(position)
            file.write(os.urandom(4096))
        file.truncate(length)


@pytest.mark.parametrize(
    ("length", "data_at"),
    [
        (0, []),
        (10, []),
        (5000, [0]),
        (64 * MEBIBYTE, []),
        (64 * MEBIBYTE, [0]),
        (64 * MEBIBYTE + 4096, [MEBIBYTE, 40 * MEBIBYTE, 64 * MEBIBYTE]),
    ],
)
def test_a_copy_has_the_content_and_the_holes(tmp_path: Path, length: int, data_at: list[int]) -> None:
    make(tmp_path / "source", length=length, data_at=data_at)
    with (tmp_path / "source").open("rb") as source, (tmp_path / "copy").open("wb") as copy:
        holes.copy_content(source.fileno(), copy.fileno())
        spans = list(holes.data_spans(source.fileno()))
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "source").read_bytes()
    assert (tmp_path / "copy").stat().st_blocks * 512 <= 3 * 4096 + 4096
    assert [begin for begin, _end in spans] == data_at


@pytest.mark.parametrize("size_bytes", [0, 1, 4095, 4096, 4097, 12_288, 70_000, 300_000])
@pytest.mark.parametrize("kind", ["zeros", "data", "both"])
def test_zeros_of_a_whole_file_become_holes_and_nothing_else_changes(
    tmp_path: Path, kind: str, size_bytes: int
) -> None:
    content = {"zeros": b"\0", "data": b"x", "both": b"\0" * 9000 + b"x" * 5000}[kind]
    content = (content * (size_bytes // len(content) + 1))[:size_bytes]
    file = tmp_path / "file"
    file.write_bytes(content)
    os.utime(file, ns=(1_500_000_000_987_654_321, 1_400_000_000_123_456_789))
    before = file.stat()
    descriptor = os.open(file, os.O_RDWR)
    try:
        holes.punch_all_zeros(descriptor)
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    assert file.read_bytes() == content
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    if kind == "zeros":
        assert after.st_blocks == 0
    if kind == "both" and size_bytes == 300_000:
        assert holes.has_holes(after)


def test_zeros_become_holes_and_times_stay(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 4096 + bytes(1 << 20) + b"y" * 10)
    before = path.stat()
    with path.open("r+b") as file:
        try:
            holes.punch_all_zeros(file.fileno())
        except OSError as error:
            pytest.skip(f"no holes here: {error}")
    after = path.stat()
    assert path.read_bytes() == b"x" * 4096 + bytes(1 << 20) + b"y" * 10
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)
    assert after.st_blocks * 512 < 1 << 20
