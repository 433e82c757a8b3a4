"""The entries of a snapshot as the catalog has them, or as the tree has them without a catalog."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Self

from turku.core.filesystem import holes
from turku.core.filesystem.paths import joined
from turku.core.filesystem.spool import Stack
from turku.core.log import one_line
from turku.errors import CatalogUnusable, NotInHistory
from turku.protocol.restore_messages import WITH_HOLES_LIMIT, WITH_HOLES_LIMIT_BYTES
from turku.storage.catalog import Catalog, CatalogEntry, Scope, database, open_catalog
from turku.storage.catalog.entry import KINDS, EntryKind
from turku.storage.catalog.scan import ScannedEntry, SnapshotReader
from turku.storage.catalog.selection import Selection
from turku.storage.config.model import ReceivingConfig, StorageConfig, StorageState
from turku.storage.fs import attributes, disk_usage
from turku.storage.restore.snapshot_lookup import SnapshotTree

_LOG = logging.getLogger(__name__)

_EXAMINED_FILES = 10_000
"""The number of files that are examined for holes and further names, so that a plan takes little time."""


def is_fake_super(configuration: ReceivingConfig) -> bool:
    """Return True if trees here keep owners and the like in rsync's own attributes."""
    fake_super = configuration.fake_super
    return os.geteuid() != 0 if fake_super == "auto" else fake_super


class RecordedEntries:
    """The entries of one snapshot at and below some paths, as a context manager for one thread."""

    def __init__(self, configuration: StorageConfig, snapshot: SnapshotTree, root: int, paths: Sequence[bytes]) -> None:
        """Open the entries.

        ``root`` is the open directory of the tree, and stays the caller's. No ``paths`` are the whole tree.
        """
        self._stack = ExitStack()
        self._snapshot = snapshot
        self._paths = tuple(paths) or (b"",)
        self._scope = Scope(snapshot.name, frozenset(paths))
        self._tree = self._stack.enter_context(SnapshotReader(os.dup(root)))
        self._is_faked = is_fake_super(configuration.receiving)
        self._selection: Selection | None = None
        self._catalog = self._opened(configuration.state)
        self._listing = _DirectoryCursor(b"", iter(()))
        # A bit for each row of the catalog, as a path may be named more than once.
        self._named = bytearray()
        self._named_count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def stored(self, path: bytes) -> CatalogEntry | None:
        """Return the tree's entry at a path, also above the requested ones, or None if there is none."""
        parent, _slash, name = path.rpartition(b"/")
        directory = self._tree.find_directory(parent)
        found = None if directory is None else self._tree.entry(directory, name)
        return None if found is None else _scanned_entry(path, found)

    def beyond_mode(self, path: bytes) -> tuple[list[str], int | None]:
        """Return the names of the ACLs and attributes in the tree at a path, and the group's rights in an ACL."""
        parent, _slash, name = path.rpartition(b"/")
        directory = self._tree.find_directory(parent)
        if directory is None or not path:
            return [], None
        return attributes.beyond_mode(directory, name, is_faked=self._is_faked)

    def expected(self, path: bytes) -> CatalogEntry | None:
        """Return the entry that the path must have, or None if there is none or the path was not requested.

        This is fast for paths in rsync's order: the entries of a directory one after the other, by name.
        """
        if not self._scope.has_path(path):
            return None
        if self._catalog is None:
            return self.stored(path)
        directory, _slash, _name = path.rpartition(b"/")
        if directory != self._listing.directory:
            try:
                entries = self._catalog.list(self._snapshot.name, directory)
            except NotInHistory:
                # The catalog lacks the directory, or it is above the requested paths.
                entries = iter(())
            self._listing = _DirectoryCursor(directory, entries)
        entry = self._listing.at(path) or self._catalog.entry(self._snapshot.name, path)
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
        """Return True if ``expected`` was called for all entries in the catalog that are not directories."""
        totals = self.totals()
        return totals is None or self._named_count >= totals[0]

    def lost(self, *, names_files: bool) -> Iterator[bytes]:
        """Yield the paths that the catalog lists and that the tree lacks, or has as another kind.

        Yields nothing without a catalog. Without ``names_files`` it yields directories only, which are fewer.
        """
        if self._catalog is None or self._selection is None:
            return
        if not names_files:
            directories = self._selection.directories()
            yield from (path for path in directories if path and self._tree.find_directory(path) is None)
            return
        for path in self._paths:
            entries = self._catalog.files(self._snapshot.name, path)
            yield from (entry.path for entry in entries if entry.path and self.is_lost(entry))

    def is_lost(self, entry: CatalogEntry) -> bool:
        """Return True if the tree lacks the catalog's entry."""
        try:
            now = self.stored(entry.path)
        except OSError as error:
            _LOG.warning("%s: %s cannot be read: %s", self._snapshot.name, one_line(entry.path), error.strerror)
            return True
        return now is None or now.kind is not entry.kind

    def is_recorded(self, path: bytes) -> bool:
        """Return True if the catalog lists the path, whatever the tree has."""
        return self._catalog is not None and self._catalog.entry(self._snapshot.name, path) is not None

    def entries(self) -> Iterator[CatalogEntry]:
        """Yield all entries that are not directories."""
        for path in self._paths:
            if self._catalog is not None:
                yield from (
                    entry
                    for entry in self._catalog.files(self._snapshot.name, path)
                    if entry.kind is not EntryKind.DIRECTORY
                )
                continue
            found = self.stored(path) if path else None
            if found is not None and found.kind is not EntryKind.DIRECTORY:
                yield found
            else:
                yield from self._below(path)

    def totals(self) -> tuple[int, int] | None:
        """Return the number of entries that are not directories, and the sum of their sizes in bytes.

        None without a catalog, as counting would take long.
        """
        return None if self._selection is None else self._selection.totals()

    def copy_bytes(self) -> int | None:
        """Return the disk space that the entries take after the restore, or None without a catalog.

        Holes and further names of a file take no space.
        """
        if self._selection is None:
            return None
        files = self._selection.largest(_EXAMINED_FILES)
        saved_bytes = sum(size_bytes for _path, size_bytes in files) - disk_usage.copy_bytes(self._tree, files)
        return self._selection.totals()[1] - saved_bytes

    def with_holes(self) -> tuple[list[bytes], int] | None:
        """Return the files with holes, and the approximate size of the holes in bytes.

        None without a catalog, or if there may be more files than an agent can be sent.
        """
        if self._selection is None:
            return None
        paths = self._selection.may_have_holes(holes.LEAST_BYTES, WITH_HOLES_LIMIT + 1)
        if len(paths) > WITH_HOLES_LIMIT or sum(map(len, paths)) > WITH_HOLES_LIMIT_BYTES:
            return None
        found, size_bytes = [], 0
        for path in paths:
            # A lost file is reported elsewhere.
            with suppress(OSError):
                status = self._tree.status(path)
                if holes.has_holes(status):
                    found.append(path)
                    size_bytes += status.st_size - status.st_blocks * disk_usage.BLOCK_BYTES
        return found, size_bytes

    def _opened(self, configuration: StorageState) -> Catalog | None:
        """Return the catalog, or None if there is none yet.

        Building one reads every tree, and would give no checksums.
        """
        if not (self._snapshot.is_snapshot and database.exists(self._snapshot.place)):
            return None
        try:
            opened = self._stack.enter_context(
                open_catalog(self._snapshot.place, zone=configuration.timezone, scope=self._scope)
            )
        except CatalogUnusable as error:
            _LOG.warning("%s: restored without the catalog: %s", self._snapshot.name, error.message)
            return None
        for each in opened.snapshots():
            if each.name == self._snapshot.name:
                self._selection = Selection(opened, each.position, self._paths)
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
    """Yield the entries of a directory in a tree without a catalog, by name.

    If ``is_recursive``, everything below follows. Raises NotInHistory if it is not a directory there.
    """
    if tree.find_directory(path) is None:
        raise NotInHistory(f"{one_line(path)} is not a directory there")
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
    """A cursor in the entries of a directory by name, read on as they are requested."""

    def __init__(self, directory: bytes, entries: Iterator[CatalogEntry]) -> None:
        self.directory = directory
        self._entries = entries
        self._next = next(entries, None)

    def at(self, path: bytes) -> CatalogEntry | None:
        """Return the entry of this path, or None if there is none or it was passed already."""
        while self._next is not None and self._next.path < path:
            self._next = next(self._entries, None)
        return self._next if self._next is not None and self._next.path == path else None
