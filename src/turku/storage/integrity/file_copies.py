"""The stored copies of one version of a path: one copy where snapshots share it, or several.

Snapshots share a file by hard links, or by blocks where the file system can do that. Two files with the same blocks are
read as one.
"""

import errno
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from turku.core.filesystem.directory_tree import DirectoryTree
from turku.storage.catalog import Catalog, CatalogEntry
from turku.storage.fs import clone as copy
from turku.storage.fs import disk_usage
from turku.storage.fs import tree as fs
from turku.storage.integrity.replacement import StoredName

NOT_OF_THE_FILE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors that tell nothing about the file."""
_OPEN_TREES = 100
_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True)
class StoredCopy:
    """A stored file that holds a version."""

    names: tuple[StoredName, ...]
    """Its names, in distinct trees."""
    snapshots: tuple[str, ...]
    """All snapshots that have it, oldest first."""
    status: os.stat_result | None
    """Its status, or None if it is missing."""
    error: OSError | None = None

    @property
    def has_left_history(self) -> bool:
        """Return True if its snapshots have left history meanwhile. Nothing is then reported about it."""
        return not any(fs.is_directory(name.tree) for name in self.names)


class FileCopies:
    """The stored copies of versions in a source's snapshots, as a context manager."""

    def __init__(self, known: Catalog) -> None:
        self._names = [each.name for each in known.snapshots()]
        self.number = {name: number for number, name in enumerate(self._names)}
        """The number of each snapshot in their order."""
        # A snapshot of an unchanged source has the tree of the one before it.
        self._trees = [known.place.tree(name) for name in self._names]
        self._open: OrderedDict[Path, DirectoryTree] = OrderedDict()
        self._shares_blocks = copy.may_share_blocks(known.place.machine_dir)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for tree in self._open.values():
            tree.close()
        self._open.clear()

    def copies_of(self, entry: CatalogEntry) -> list[StoredCopy]:
        """Return the stored copies of the version, each with all of its names, newest first.

        Files that a storage without root cannot read are skipped, as that is not damage. Raises OSError if this process
        or the host runs out of resources.
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
        """Return one copy for each file, as files with the same blocks have attributes of their own."""
        if not self._shares_blocks or copy.status is None or copy.status.st_nlink > 1:
            return [copy]
        of_tree: dict[Path, list[str]] = {}
        for snapshot in copy.snapshots:
            of_tree.setdefault(self._trees[self.number[snapshot]], []).append(snapshot)
        return [replace(copy, names=(name,), snapshots=tuple(of_tree[name.tree])) for name in copy.names]

    def refreshed(self, copy: StoredCopy) -> StoredCopy:
        """Return the present state of the copy, from a newly opened tree. Raises what ``copies_of`` raises."""
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
        """Return a descriptor of the file, for reading, for the caller to close. Raises OSError."""
        return self._tree(name.tree).open_file(name.path)

    def _tree(self, path: Path) -> DirectoryTree:
        """Return the tree at the path, open for now. A long history has too many trees to keep all of them open."""
        if path in self._open:
            self._open.move_to_end(path)
        else:
            if len(self._open) >= _OPEN_TREES:
                self._open.popitem(last=False)[1].close()
            self._open[path] = DirectoryTree(path)
        return self._open[path]

    def _between(self, first: int, last: int) -> Iterator[tuple[Path, list[str]]]:
        """Yield the distinct trees of these snapshots, newest first, each with the names of its snapshots."""
        found: dict[Path, list[str]] = {}
        for number in range(last, first - 1, -1):
            found.setdefault(self._trees[number], []).append(self._names[number])
        yield from found.items()

    def _identity(self, tree: Path, path: bytes, status: os.stat_result) -> object:
        """Return a key that is equal for two names of one stored file, or of the same blocks on the disk."""
        if status.st_nlink == 1 and self._shares_blocks and status.st_size:
            descriptor = self._tree(tree).open_file(path)
            try:
                return disk_usage.extent_signature(descriptor) or (status.st_dev, status.st_ino)
            finally:
                os.close(descriptor)
        return (status.st_dev, status.st_ino)
