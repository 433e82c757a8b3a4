"""What a snapshot's paths have to be: as the catalog has it, or as the tree has it where there is no catalog."""

from __future__ import annotations

import heapq
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from turku.core.filesystem import holes
from turku.core.log import one_line
from turku.core.paths import joined
from turku.core.spool import Stack
from turku.errors import CatalogUnusable, NotInHistory
from turku.protocol.restore_messages import WITH_HOLES_LIMIT, WITH_HOLES_LIMIT_BYTES
from turku.storage.catalog import Catalog, CatalogEntry, Scope, database, open_catalog
from turku.storage.catalog.entry import KINDS, EntryKind
from turku.storage.catalog.scan import ScannedEntry, SnapshotReader
from turku.storage.config.model import StorageConfig
from turku.storage.fs import attributes, disk_usage
from turku.storage.restore.snapshot_lookup import SnapshotTree

_LOG = logging.getLogger(__name__)


_TOTAL = """
SELECT count(*), sum(size) FROM versions
WHERE kind != 1 AND first <= :position AND (last IS NULL OR last >= :position)
"""
_TOTAL_BELOW = """
SELECT count(*), sum(size) FROM versions JOIN directories ON directories.id = versions.directory
WHERE kind != 1 AND first <= :position AND (last IS NULL OR last >= :position)
    AND ((directories.path = :directory AND versions.name = :name)
        OR directories.path = :path OR (directories.path > :after AND directories.path < :end))
"""
_LARGEST = """
SELECT directories.path, versions.name, size FROM versions JOIN directories ON directories.id = versions.directory
WHERE kind = 0 AND first <= :position AND (last IS NULL OR last >= :position)
ORDER BY size DESC LIMIT :limit
"""
_LARGEST_BELOW = """
SELECT directories.path, versions.name, size FROM versions JOIN directories ON directories.id = versions.directory
WHERE kind = 0 AND first <= :position AND (last IS NULL OR last >= :position)
    AND ((directories.path = :directory AND versions.name = :name)
        OR directories.path = :path OR (directories.path > :after AND directories.path < :end))
ORDER BY size DESC LIMIT :limit
"""
_WITH_HOLES = """
SELECT directories.path, versions.name FROM versions JOIN directories ON directories.id = versions.directory
WHERE kind = 0 AND size >= :least AND has_holes IS NOT 0 AND first <= :position AND (last IS NULL OR last >= :position)
ORDER BY directories.path, versions.name LIMIT :limit
"""
_WITH_HOLES_BELOW = """
SELECT directories.path, versions.name FROM versions JOIN directories ON directories.id = versions.directory
WHERE kind = 0 AND size >= :least AND has_holes IS NOT 0 AND first <= :position AND (last IS NULL OR last >= :position)
    AND ((directories.path = :directory AND versions.name = :name)
        OR directories.path = :path OR (directories.path > :after AND directories.path < :end))
ORDER BY directories.path, versions.name LIMIT :limit
"""
_LARGEST_LOOKED_AT = 10_000
"""Files whose holes and further names are looked for, so that a plan takes no time to speak of."""
_DIRECTORIES = """
SELECT directories.path, versions.name FROM versions JOIN directories ON directories.id = versions.directory
WHERE kind = 1 AND first <= :position AND (last IS NULL OR last >= :position)
"""
_DIRECTORIES_BELOW = """
SELECT directories.path, versions.name FROM versions JOIN directories ON directories.id = versions.directory
WHERE kind = 1 AND first <= :position AND (last IS NULL OR last >= :position)
    AND ((directories.path = :directory AND versions.name = :name)
        OR directories.path = :path OR (directories.path > :after AND directories.path < :end))
"""


def is_fake_super(configuration: StorageConfig) -> bool:
    """Return True where trees here keep owners, and what else only root may set, in attributes of rsync's own."""
    fake_super = configuration.receiving.fake_super
    return os.geteuid() != 0 if fake_super == "auto" else fake_super


class RecordedEntries:
    """The entries of one snapshot at and below some paths; a context manager, for one thread."""

    def __init__(self, configuration: StorageConfig, kept: SnapshotTree, root: int, paths: Sequence[bytes]) -> None:
        """``root`` is the open directory of the tree, and stays the caller's; without ``paths`` it is all of it."""
        self._stack = ExitStack()
        self._kept = kept
        self._paths = tuple(paths) or (b"",)
        self._scope = Scope(kept.name, frozenset(paths))
        self._tree = self._stack.enter_context(SnapshotReader(os.dup(root)))
        self._position = 0
        self._is_faked = is_fake_super(configuration)
        self._catalog = self._opened(configuration)
        self._listing = _DirectoryCursor(b"", iter(()))
        # A bit for each row of the catalog: a path may be named more than once.
        self._named = bytearray()
        self._named_count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def stored(self, path: bytes) -> CatalogEntry | None:
        """Return what the tree has at a path, be it one above those asked for; None for nothing."""
        parent, _slash, name = path.rpartition(b"/")
        directory = self._tree.find_directory(parent)
        found = None if directory is None else self._tree.entry(directory, name)
        return None if found is None else _scanned_entry(path, found)

    def beyond_mode(self, path: bytes) -> tuple[list[str], int | None]:
        """Return the names of the ACLs and attributes that the tree has at a path, and what an ACL allows the group."""
        parent, _slash, name = path.rpartition(b"/")
        directory = self._tree.find_directory(parent)
        if directory is None or not path:
            return [], None
        return attributes.beyond_mode(directory, name, is_faked=self._is_faked)

    def expected(self, path: bytes) -> CatalogEntry | None:
        """Return what the path has to be; None for nothing, and for a path that was not asked for.

        Quick where paths come as rsync has them: a directory's entries one after the other, by name.
        """
        if not self._scope.has_path(path):
            return None
        if self._catalog is None:
            return self.stored(path)
        directory, _slash, _name = path.rpartition(b"/")
        if directory != self._listing.directory:
            try:
                entries = self._catalog.list(self._kept.name, directory)
            except NotInHistory:
                # A directory that the catalog does not have, or one above the paths that were asked for.
                entries = iter(())
            self._listing = _DirectoryCursor(directory, entries)
        entry = self._listing.at(path) or self._catalog.entry(self._kept.name, path)
        if entry is None:
            return self.stored(path)
        if entry.kind is not EntryKind.DIRECTORY:
            self._mark_named(entry.version)
        return entry

    def _mark_named(self, row: int) -> None:
        place, bit = row >> 3, 1 << (row & 7)
        if place >= len(self._named):
            self._named.extend(bytes(place + 1 - len(self._named)))
        if not self._named[place] & bit:
            self._named[place] |= bit
            self._named_count += 1

    def has_named_all(self) -> bool:
        """Return True where ``found`` was asked for everything that the catalog lists and that is no directory."""
        totals = self.totals()
        return totals is None or self._named_count >= totals[0]

    def lost(self, *, names_files: bool) -> Iterator[bytes]:
        """Yield the paths that the catalog lists, and that the tree does not have, or has as another kind.

        Nothing without a catalog. Directories alone, which are fewer, without ``names_files``.
        """
        if self._catalog is None:
            return
        for path in self._paths:
            if names_files:
                entries = self._catalog.files(self._kept.name, path)
                yield from (entry.path for entry in entries if entry.path and self.is_lost(entry))
                continue
            for directory, name in self._catalog.connection.execute(
                _DIRECTORIES_BELOW if path else _DIRECTORIES, self._values(path)
            ):
                inside = joined(directory, name)
                if inside and self._tree.find_directory(inside) is None:
                    yield inside

    def is_lost(self, entry: CatalogEntry) -> bool:
        """Return True where the tree does not have the catalog's entry."""
        try:
            now = self.stored(entry.path)
        except OSError as error:
            _LOG.warning("%s: %s cannot be looked at: %s", self._kept.name, one_line(entry.path), error.strerror)
            return True
        return now is None or now.kind is not entry.kind

    def is_recorded(self, path: bytes) -> bool:
        """Return True where the catalog lists the path, whatever the tree has."""
        return self._catalog is not None and self._catalog.entry(self._kept.name, path) is not None

    def entries(self) -> Iterator[CatalogEntry]:
        """Yield everything that is no directory."""
        for path in self._paths:
            if self._catalog is not None:
                yield from (
                    entry
                    for entry in self._catalog.files(self._kept.name, path)
                    if entry.kind is not EntryKind.DIRECTORY
                )
                continue
            found = self.stored(path) if path else None
            if found is not None and found.kind is not EntryKind.DIRECTORY:
                yield found
            else:
                yield from self._below(path)

    def totals(self) -> tuple[int, int] | None:
        """Return how many entries that are no directories there are, and their bytes; None where counting would take
        long."""
        if self._catalog is None:
            return None
        files = size_bytes = 0
        for path in self._paths:
            query = _TOTAL_BELOW if path else _TOTAL
            row = self._catalog.connection.execute(query, self._values(path)).fetchone()
            files += row[0]
            size_bytes += row[1] or 0
        return files, size_bytes

    def copy_bytes(self) -> int | None:
        """Return how many bytes of disk the entries take where they are restored; None where counting would take long.

        Holes and further names of a file take nothing.
        """
        totals = self.totals()
        if totals is None or self._catalog is None:
            return None
        files = heapq.nlargest(_LARGEST_LOOKED_AT, self._largest(self._catalog), key=lambda file: file[1])
        saved_bytes = sum(size_bytes for _path, size_bytes in files) - disk_usage.copy_bytes(self._tree, files)
        return totals[1] - saved_bytes

    def with_holes(self) -> tuple[list[bytes], int] | None:
        """Return the files that have holes, and about how many bytes those have.

        None where there may be more of them than an agent can be told of.
        """
        if self._catalog is None:
            return None
        paths: dict[bytes, None] = {}
        for path in self._paths:
            query = _WITH_HOLES_BELOW if path else _WITH_HOLES
            values = {**self._values(path), "least": holes.LEAST_BYTES, "limit": WITH_HOLES_LIMIT + 1}
            rows = self._catalog.connection.execute(query, values).fetchall()
            paths |= dict.fromkeys(joined(directory, name) for directory, name in rows)
            if len(paths) > WITH_HOLES_LIMIT:
                return None
        if sum(map(len, paths)) > WITH_HOLES_LIMIT_BYTES:
            return None
        found, size_bytes = [], 0
        for path in paths:
            # What is lost is told elsewhere.
            with suppress(OSError):
                status = self._tree.status(path)
                if holes.has_holes(status):
                    found.append(path)
                    size_bytes += status.st_size - status.st_blocks * disk_usage.BLOCK_BYTES
        return found, size_bytes

    def _largest(self, catalog: Catalog) -> Iterator[tuple[bytes, int]]:
        """Yield the paths of the largest files, with their sizes."""
        for path in self._paths:
            query = _LARGEST_BELOW if path else _LARGEST
            values = {**self._values(path), "limit": _LARGEST_LOOKED_AT}
            for directory, name, size_bytes in catalog.connection.execute(query, values):
                yield joined(directory, name), size_bytes

    def _values(self, path: bytes) -> dict[str, bytes | int]:
        """Return what the queries of what is at and below a path are asked with."""
        directory, _slash, name = path.rpartition(b"/")
        return {
            "position": self._position,
            "directory": directory,
            "name": name,
            "path": path,
            "after": path + b"/",
            "end": path + b"0",
        }

    def _opened(self, configuration: StorageConfig) -> Catalog | None:
        """The catalog; None where there is none yet: making one reads every tree, and would know no checksums."""
        if not (self._kept.is_snapshot and database.exists(self._kept.place)):
            return None
        try:
            opened = self._stack.enter_context(
                open_catalog(self._kept.place, zone=configuration.state.timezone, scope=self._scope)
            )
        except CatalogUnusable as error:
            _LOG.warning("%s: restored without the catalog: %s", self._kept.name, error.message)
            return None
        for each in opened.snapshots():
            if each.name == self._kept.name:
                self._position = each.position
                return opened
        return None

    def _below(self, path: bytes) -> Iterator[CatalogEntry]:
        with Stack() as waiting:
            waiting.push(path)
            while (directory := waiting.pop()) is not None:
                inner = []
                for name, found in self._tree.entries(directory):
                    recorded = _scanned_entry(joined(directory, name), found)
                    if recorded.kind is EntryKind.DIRECTORY:
                        inner.append(name)
                    else:
                        yield recorded
                waiting.push_all(joined(directory, name) for name in sorted(inner, reverse=True))


def in_tree(tree: SnapshotReader, path: bytes, *, is_recursive: bool) -> Iterator[CatalogEntry]:
    """Yield what a directory of a tree without a catalog has in it, by name; with everything below where recursive.

    Raises NotInHistory for what is no directory there.
    """
    if tree.find_directory(path) is None:
        raise NotInHistory(f"{one_line(path)} is no directory there")
    with Stack() as waiting:
        waiting.push(path)
        while (directory := waiting.pop()) is not None:
            inner = []
            for name, found in sorted(tree.entries(directory)):
                entry = _scanned_entry(joined(directory, name), found)
                yield entry
                if entry.kind is EntryKind.DIRECTORY:
                    inner.append(entry.path)
            if is_recursive:
                waiting.push_all(reversed(inner))


def _scanned_entry(path: bytes, found: ScannedEntry) -> CatalogEntry:
    return CatalogEntry(
        path,
        KINDS[found.kind],
        found.size,
        found.mode,
        found.uid,
        found.gid,
        found.mtime_ns,
        checksum=None,
        link_target=found.link_target,
        first="",
        last="",
        version=0,
        attributes=found.attributes,
    )


class _DirectoryCursor:
    """A directory's entries by name, read on as they are asked for."""

    def __init__(self, directory: bytes, entries: Iterator[CatalogEntry]) -> None:
        self.directory = directory
        self._entries = entries
        self._next = next(entries, None)

    def at(self, path: bytes) -> CatalogEntry | None:
        """The entry of this path; None where there is none, or it was passed by already."""
        while self._next is not None and self._next.path < path:
            self._next = next(self._entries, None)
        return self._next if self._next is not None and self._next.path == path else None
