"""The hard links inside a tree, for sources whose hard links are kept."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from turku.core.filesystem.directory_tree import DirectoryTree

FILES_LIMIT = 200_000
"""The number of files whose other names are searched at once."""


def find_other_names(tree: Path, paths: Iterable[bytes]) -> set[bytes] | None:
    """Return the other paths in the tree that are the same file as one of ``paths``.

    A file that snapshots share has further names outside the tree. Returns None if there are
    too many files to search for. Raises OSError.
    """
    given = set(paths)
    if len(given) > FILES_LIMIT:
        return None
    with DirectoryTree(tree) as opened:
        wanted = set()
        for path in given:
            with suppress(FileNotFoundError, NotADirectoryError):
                status = opened.status(path)
                if status.st_nlink > 1:
                    wanted.add(_identity(status))
        if not wanted:
            return set()
        found = (each.full_path for each in opened.walk() if each.is_file and _identity(each.status) in wanted)
        return set(found) - given


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
