"""The further names that files of a tree have in it: hard links, where a source's are kept."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from turku.core.filesystem.directory_tree import DirectoryTree

FILES_LIMIT = 200_000
"""Files whose other names are looked for at once."""


class TooManyFiles(Exception):
    """There are more files than can be looked for."""


def find_other_names(tree: Path, paths: Iterable[bytes]) -> set[bytes]:
    """Return the paths of the tree that are the same file as one of ``paths``, without these.

    What is not there, and what has one name, has no others. A file that snapshots share has names outside of the tree.
    Raises TooManyFiles, OSError.
    """
    told = set(paths)
    if len(told) > FILES_LIMIT:
        raise TooManyFiles
    with DirectoryTree(tree) as opened:
        wanted = set()
        for path in told:
            with suppress(FileNotFoundError, NotADirectoryError):
                status = opened.status(path)
                if status.st_nlink > 1:
                    wanted.add(_identity(status))
        if not wanted:
            return set()
        found = (each.full_path for each in opened.walk() if each.is_file and _identity(each.status) in wanted)
        return set(found) - told


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
