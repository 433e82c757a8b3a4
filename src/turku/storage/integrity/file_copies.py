"""The stored files that hold one version of a path: one where snapshots share it, or several.

Snapshots share a file by hard links, or, on file systems whose files share blocks, by these: two files of the same
blocks are one as far as reading is concerned.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from turku.core.filesystem.directory_tree import DirectoryTree
from turku.storage.catalog import Catalog, CatalogEntry
from turku.storage.fs import clone as copy
from turku.storage.fs import disk_usage
from turku.storage.fs import tree as fs
from turku.storage.integrity.replacement import StoredName

NOT_OF_THE_FILE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors that say nothing of the file that was looked at."""
_OPEN_TREES = 100
_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True)
class StoredCopy:
    """A stored file that holds a version."""

    names: tuple[StoredName, ...]
    """In distinct trees."""
    snapshots: tuple[str, ...]
    """All that have it, oldest first."""
    status: os.stat_result | None
    """None where nothing is there."""
    error: OSError | None = None

    @property
    def has_left_history(self) -> bool:
        """Whether its snapshots left history meanwhile, so that nothing is said of it."""
        return not any(fs.is_directory(name.tree) for name in self.names)


class FileCopies:
    """The copies of versions in a source's snapshots; a context manager."""

    def __init__(self, known: Catalog) -> None:
        self._names = [each.name for each in known.snapshots()]
        self.number = {name: number for number, name in enumerate(self._names)}
        """The place of each snapshot in their order."""
        # A snapshot of an unchanged source has the tree of the one before it.
        self._trees = [known.place.tree(name) for name in self._names]
        self._open: OrderedDict[Path, DirectoryTree] = OrderedDict()
        self._shares_blocks = copy.may_share_blocks(known.place.machine_dir)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for tree in self._open.values():
            tree.close()
        self._open.clear()

    def copies_of(self, entry: CatalogEntry) -> list[StoredCopy]:
        """The stored files that hold the version, each with all of its names; newest first.

        What a storage without root must not read is left out: it is not damaged. Raises OSError where this process, or
        the host, has no more to give.
        """
        found: dict[object, tuple[list[StoredName], list[str], os.stat_result | None, OSError | None]] = {}
        for tree, snapshots in self._between(self.number[entry.first], self.number[entry.last]):
            key: object
            status: os.stat_result | None = None
            failure: OSError | None = None
            try:
                status = self._tree(tree).status(entry.path)
                key = self._identity(tree, entry.path, status)
            except OSError as error:
                if error.errno in NOT_OF_THE_FILE:
                    raise
                if error.errno == errno.EACCES or not fs.is_directory(tree):
                    continue
                failure = None if error.errno in _NOTHING_THERE else error
                key = ("none", failure is None)
            names, all_snapshots, *_ = found.setdefault(key, ([], [], status, failure))
            names.append(StoredName(tree, entry.path))
            all_snapshots += snapshots
        return [
            StoredCopy(tuple(names), tuple(sorted(snapshots, key=self.number.__getitem__)), status, failure)
            for names, snapshots, status, failure in found.values()
        ]

    def separate_files(self, copy: StoredCopy) -> list[StoredCopy]:
        """Return the copy as one for each file: those whose blocks are the same have attributes of their own."""
        if not self._shares_blocks or copy.status is None or copy.status.st_nlink > 1:
            return [copy]
        of_tree: dict[Path, list[str]] = {}
        for snapshot in copy.snapshots:
            of_tree.setdefault(self._trees[self.number[snapshot]], []).append(snapshot)
        return [replace(copy, names=(name,), snapshots=tuple(of_tree[name.tree])) for name in copy.names]

    def refreshed(self, copy: StoredCopy) -> StoredCopy:
        """Return the copy as it is found now, its tree opened anew. Raises OSError as ``of`` does."""
        name = copy.names[0]
        opened = self._open.pop(name.tree, None)
        if opened is not None:
            opened.close()
        try:
            return replace(copy, status=self._tree(name.tree).status(name.path), error=None)
        except OSError as error:
            if error.errno in NOT_OF_THE_FILE:
                raise
            return replace(copy, status=None, error=None if error.errno in _NOTHING_THERE else error)

    def open_file(self, name: StoredName) -> int:
        """A descriptor of the file, to be read and closed. Raises OSError."""
        return self._tree(name.tree).open_file(name.path)

    def _tree(self, path: Path) -> DirectoryTree:
        """The tree at the path, open for now: not all can be, of a long history."""
        if path in self._open:
            self._open.move_to_end(path)
        else:
            if len(self._open) >= _OPEN_TREES:
                self._open.popitem(last=False)[1].close()
            self._open[path] = DirectoryTree(path)
        return self._open[path]

    def _between(self, first: int, last: int) -> Iterator[tuple[Path, list[str]]]:
        """The distinct trees of these snapshots, newest first, each with their names."""
        found: dict[Path, list[str]] = {}
        for number in range(last, first - 1, -1):
            found.setdefault(self._trees[number], []).append(self._names[number])
        yield from found.items()

    def _identity(self, tree: Path, path: bytes, status: os.stat_result) -> object:
        """What two names of one stored file, or of one run of blocks on the disk, have in common."""
        if status.st_nlink == 1 and self._shares_blocks and status.st_size:
            descriptor = self._tree(tree).open_file(path)
            try:
                return disk_usage.extent_signature(descriptor) or (status.st_dev, status.st_ino)
            finally:
                os.close(descriptor)
        return (status.st_dev, status.st_ino)
