"""Holes of a file are found, and kept by copies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from turku.core import holes

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
