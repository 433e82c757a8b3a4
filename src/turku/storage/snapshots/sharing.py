"""Sharing unchanged files of a fully fetched tree with its base."""

import errno
import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from turku.core.filesystem.directory_tree import DirectoryTree, open_file_in
from turku.core.filesystem.paths import joined, split
from turku.core.filesystem.spool import Stack
from turku.storage.fs import attributes
from turku.storage.fs import tree as fs


def share_unchanged(base: Path, tree: Path, *, compares_contents: bool) -> None:
    """Replace each file of the complete ``tree`` that is unchanged since ``base`` by a hard link to the base's file.

    Names that share a file in ``tree`` go on sharing one, and no others do. A file is unchanged if its size, times,
    owner, mode and attributes are equal, and with ``compares_contents`` its content. Raises OSError.
    """
    with ExitStack() as stack:
        old, new = stack.enter_context(DirectoryTree(base)), stack.enter_context(DirectoryTree(tree))
        others = stack.enter_context(DirectoryTree(os.dup(new.root)))
        sharing = _UnchangedFiles(others, compares_contents=compares_contents)
        directories = stack.enter_context(Stack())
        directories.push(b"")
        directories.push_all(each.full_path for each in new.walk() if each.is_directory)
        while (path := directories.pop()) is not None:
            directory, former = new.directory(path), old.find_directory(path)
            if former is not None:
                before = os.fstat(directory)
                sharing.share_directory(path, directory, former)
                os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))


class _UnchangedFiles:
    """The files of a tree that were replaced by the base's files."""

    def __init__(self, tree: DirectoryTree, *, compares_contents: bool) -> None:
        self._tree = tree
        self._compares_contents = compares_contents
        # For each inode with several names: the path that is the base's file now, None if the new file stays.
        self._chosen: dict[int, bytes | None] = {}
        self._taken: set[int] = set()

    def share_directory(self, path: bytes, directory: int, former: int) -> None:
        for name in fs.names_in(directory):
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                continue
            if status.st_ino in self._chosen:
                first = self._chosen[status.st_ino]
                if first is not None:
                    parent, first_name = split(first)
                    _link_over(self._tree.directory(parent), first_name, directory, name)
                continue
            is_same = self._is_same(former, directory, name, status) and _link_over(former, name, directory, name)
            if status.st_nlink > 1:
                self._chosen[status.st_ino] = joined(path, name) if is_same else None

    def _is_same(self, former: int, directory: int, name: bytes, status: os.stat_result) -> bool:
        try:
            other = os.stat(name, dir_fd=former, follow_symlinks=False)
            if _facts(other) != _facts(status) or other.st_ino in self._taken:
                return False
            old, new = open_file_in(former, name), -1
            try:
                new = open_file_in(directory, name)
                same = attributes.extended(old) == attributes.extended(new)
                same = same and (not self._compares_contents or _has_same_content(old, new))
            finally:
                os.close(old)
                if new >= 0:
                    os.close(new)
        except OSError:
            # A file that cannot be compared counts as changed.
            return False
        if same:
            self._taken.add(other.st_ino)
        return same


def _facts(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns, status.st_dev)


def _has_same_content(old: int, new: int) -> bool:
    offset = 0
    while True:
        pair = os.pread(old, 1 << 20, offset), os.pread(new, 1 << 20, offset)
        if pair[0] != pair[1]:
            return False
        if not pair[0]:
            return True
        offset += len(pair[0])


def _link_over(source: int, name: bytes, target: int, target_name: bytes) -> bool:
    """Replace the target by a hard link to the source. Return False if the source can have no further link."""
    temporary = b".turku-link-" + secrets.token_hex(6).encode()
    try:
        os.link(name, temporary, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.EMLINK, errno.EXDEV, errno.EPERM):
            return False
        raise
    os.rename(temporary, target_name, src_dir_fd=target, dst_dir_fd=target)
    return True


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
