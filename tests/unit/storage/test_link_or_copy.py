"""A file that has as many names as its file system allows is copied, with its holes."""

import errno
import os
from pathlib import Path

import pytest

from turku.storage.fs import clone

LENGTH = 64 * 1024 * 1024


def test_the_copy_of_a_file_with_too_many_names_has_its_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_keywords: object) -> None:
        raise OSError(errno.EMLINK, "Too many links")

    with (tmp_path / "file").open("wb") as file:
        for position in (4096, LENGTH // 2):
            file.seek(position)
            file.write(os.urandom(100_000))
        file.truncate(LENGTH)
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    monkeypatch.setattr(os, "link", refuse)
    try:
        assert not clone.link_or_copy(directory, b"file", directory, b"copy")
    finally:
        os.close(directory)
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "file").read_bytes()
    assert (tmp_path / "copy").stat().st_blocks * 512 < 1024 * 1024
