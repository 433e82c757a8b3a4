"""Staging of a snapshot's entries in temporary tables: the whole tree, or what a run reported as changed.

Nothing of the catalog itself is read or locked meanwhile, so nobody waits for a tree of 1,000,000 files.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from turku.core.filesystem.paths import is_entry_path, is_within, joined, split
from turku.core.filesystem.spool import Stack
from turku.storage.catalog import database
from turku.storage.catalog.entry import DIRECTORY, FILE, stored_time
from turku.storage.catalog.scan import ScannedEntry, SnapshotReader

if TYPE_CHECKING:
    from turku.storage.rsync.change_log import ChangeLog

ROWS_AT_ONCE = 2000
_DATED_NAMED = 10
ReportedName = tuple[bytes, bytes]
"""An entry that rsync reported: its directory, and its name in that directory."""
# `was_reported`: rsync named it. `same_*`: it is the same file (device, inode) as in the base, or in the snapshot
# before or after it. `version`: the row of the catalog that continues in this snapshot.
_TABLES = """
DROP TABLE IF EXISTS temp.places;
DROP TABLE IF EXISTS temp.scanned;
DROP TABLE IF EXISTS temp.reported;
DROP TABLE IF EXISTS temp.deleted;
CREATE TABLE temp.places (number INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, id INTEGER);
CREATE TABLE temp.scanned (
    place INTEGER NOT NULL,
    name BLOB NOT NULL,
    kind INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mode INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    has_holes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    link_target BLOB,
    attributes BLOB,
    same_base INTEGER NOT NULL,
    same_before INTEGER NOT NULL,
    same_after INTEGER NOT NULL,
    was_reported INTEGER NOT NULL DEFAULT 0,
    checksum BLOB,
    version INTEGER,
    PRIMARY KEY (place, name)
) WITHOUT ROWID;
CREATE TABLE temp.reported (directory BLOB NOT NULL, name BLOB NOT NULL, PRIMARY KEY (directory, name)) WITHOUT ROWID;
CREATE TABLE temp.deleted (directory BLOB NOT NULL, name BLOB NOT NULL, PRIMARY KEY (directory, name)) WITHOUT ROWID;
"""
_INSERT_SCANNED = """
INSERT OR REPLACE INTO temp.scanned (place, name, kind, size, mode, uid, gid, has_holes, mtime_ns, link_target,
    attributes, same_base, same_before, same_after) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_SCANNED_AND_READ = """
INSERT OR REPLACE INTO temp.scanned (place, name, kind, size, mode, uid, gid, has_holes, mtime_ns, link_target,
    attributes, same_base, same_before, same_after, was_reported, checksum)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 1, ?)
"""
_DATED = """
SELECT places.path, scanned.name FROM temp.scanned JOIN temp.places ON places.number = scanned.place
WHERE mtime_ns IN (?, ?) AND NOT same_base ORDER BY places.path, scanned.name
"""
_INSERT_REPORTED = "INSERT OR REPLACE INTO temp.reported VALUES (?, ?)"
_WITHOUT_CHECKSUM = """
SELECT scanned.place, scanned.name, places.path, scanned.size
FROM temp.scanned JOIN temp.places ON places.number = scanned.place
WHERE (scanned.place, scanned.name) > (?, ?) AND kind = 0 AND NOT same_base AND (was_reported OR NOT ?)
ORDER BY scanned.place, scanned.name LIMIT ?
"""


class Staging:
    """The staged entries of one snapshot, in temporary tables of a connection."""

    def __init__(
        self, connection: sqlite3.Connection, tree: Path, *, base: Path | None, before: Path | None, after: Path | None
    ) -> None:
        """Prepare to stage ``tree``. ``base``, ``before`` and ``after`` are trees to compare with, if they exist."""
        self.is_whole = True
        """True if all entries of the tree are staged, False if only the changed and deleted ones are."""
        self._connection = connection
        self._tree = tree
        self._others = (base, before, after)
        self._numbers = 0
        self._known_numbers: dict[bytes, int] = {}

    def prepare(self) -> None:
        """Create the tables anew."""
        self._connection.executescript(_TABLES)
        self._numbers = 0
        self._known_numbers.clear()

    def scan(self, changes: "ChangeLog | None", *, may_trust: bool) -> None:
        """Read the tree, or only what ``changes`` name if they are complete and ``may_trust`` allows it.

        Complete changes name every name of a file that changed. Files get no checksums here. Raises OSError if the tree
        cannot be read.
        """
        self.prepare()
        if changes is not None and changes.lists_every_change and may_trust:
            with database.staging_transaction(self._connection):
                self._scan_changed(changes)
                self._mark_reported(changes)
            self.is_whole = False
            return
        with database.staging_transaction(self._connection):
            self._scan_all()
            if changes is not None:
                self._mark_reported(changes)

    def compute_checksums(self, *, reports_every_write: bool) -> None:
        """Read the files that the run wrote, and record their checksums. The machine's word is not taken for them.

        ``reports_every_write`` says that the run named every file whose content it wrote. Raises OSError.
        """
        place, name = 0, b""
        with SnapshotReader(self._tree) as tree:
            while True:
                values = (place, name, reports_every_write, ROWS_AT_ONCE)
                rows = self._connection.execute(_WITHOUT_CHECKSUM, values).fetchall()
                found = []
                for place, name, path, size in rows:
                    directory = tree.find_directory(path)
                    found.append((None if directory is None else tree.checksum(directory, name, size), place, name))
                with database.staging_transaction(self._connection):
                    self._connection.executemany(
                        "UPDATE temp.scanned SET checksum = ? WHERE place = ? AND name = ?", found
                    )
                if len(rows) < ROWS_AT_ONCE:
                    return

    def add(self, tree: SnapshotReader, reported: Iterable[ReportedName]) -> None:
        """Stage the present entries at these places of ``tree``, with checksums and without a comparison.

        Raises OSError if the tree cannot be read.
        """
        rows = []
        # In one transaction: one for each new directory would search every page in the cache.
        with database.staging_transaction(self._connection):
            for directory, name in reported:
                descriptor = tree.find_directory(directory)
                found = None if descriptor is None else tree.entry(descriptor, name)
                if found is not None and descriptor is not None:
                    place = self._place(directory)
                    if found.kind != FILE:
                        rows.append((place, name, *found.columns(), None))
                        continue
                    checksum, digest = tree.content(descriptor, name, found.size, found.attributes)
                    rows.append((place, name, *found.columns()[:-1], digest, checksum))
            self._connection.executemany(_INSERT_SCANNED_AND_READ, rows)

    def defer(self, reported: Iterable[ReportedName]) -> None:
        """Remember these places for ``add_deferred``."""
        with database.staging_transaction(self._connection):
            self._connection.executemany(_INSERT_REPORTED, reported)

    def add_deferred(self, tree: SnapshotReader) -> None:
        """Stage the present entries at the deferred places. Raises OSError."""
        waiting = self._connection.execute("SELECT directory, name FROM temp.reported ORDER BY directory, name")
        while reported := waiting.fetchmany(ROWS_AT_ONCE):
            self.add(tree, reported)

    def entries_dated(self, moments_ns: tuple[int | None, int | None]) -> tuple[list[bytes], int]:
        """Return the paths of a few new entries with either date, and the number of all of them."""
        found = self._connection.execute(
            _DATED, [None if moment_ns is None else stored_time(moment_ns) for moment_ns in moments_ns]
        )
        named = [joined(path, name) for path, name in found.fetchmany(_DATED_NAMED)]
        return named, len(named) + sum(1 for _row in found)

    def drop_tables(self) -> None:
        """Drop the tables."""
        for table in ("places", "scanned", "reported", "deleted"):
            self._connection.execute(f"DROP TABLE IF EXISTS temp.{table}")

    def _scan_all(self) -> None:
        rows: list[tuple[object, ...]] = []
        with ExitStack() as stack:
            tree = stack.enter_context(SnapshotReader(self._tree))
            others = self._opened(stack)
            waiting = stack.enter_context(Stack())
            waiting.push(b"")
            while (path := waiting.pop()) is not None:
                number = self._new_place(path)
                directories = [None if other is None else other.find_directory(path) for other in others]
                inner: list[bytes] = []
                for name, found in tree.entries(path):
                    if found.kind == DIRECTORY:
                        inner.append(name)
                    rows.append(_row(number, name, found, others, directories))
                    if len(rows) >= ROWS_AT_ONCE:
                        self._connection.executemany(_INSERT_SCANNED, rows)
                        rows.clear()
                waiting.push_all(joined(path, name) for name in sorted(inner, reverse=True))
            self._connection.executemany(_INSERT_SCANNED, rows)

    def _scan_changed(self, changes: "ChangeLog") -> None:
        with ExitStack() as stack:
            tree = stack.enter_context(SnapshotReader(self._tree))
            others = self._opened(stack)
            for path in self._with_parents(changes):
                directory, name = split(path)
                descriptor = tree.find_directory(directory)
                found = None if descriptor is None else tree.entry(descriptor, name)
                if found is None:
                    self._connection.execute("INSERT OR IGNORE INTO temp.deleted VALUES (?, ?)", (directory, name))
                    continue
                directories = [None if other is None else other.find_directory(directory) for other in others]
                row = _row(self._place(directory), name, found, others, directories)
                self._connection.execute(_INSERT_SCANNED, row)

    def _with_parents(self, changes: "ChangeLog") -> Iterator[bytes]:
        """Yield the changed paths and the directories above them, as their times may have changed too.

        Directories above the previous path were yielded with it. Each directory comes after its parent, which is open
        by then: the machine chose how deep the tree is.
        """
        parent = b""
        for change in changes:
            if not is_entry_path(change.path):
                continue
            above = each = split(change.path)[0]
            above_unreported: list[bytes] = []
            while each and not is_within(parent, each):
                above_unreported.append(each)
                each = split(each)[0]
            yield from reversed(above_unreported)
            yield change.path
            parent = above

    def _mark_reported(self, changes: "ChangeLog") -> None:
        connection = self._connection
        connection.executemany(
            _INSERT_REPORTED,
            (split(change.path) for change in changes if change.kind == "changed" and is_entry_path(change.path)),
        )
        connection.execute(
            """
            UPDATE temp.scanned SET was_reported = 1
            FROM temp.reported JOIN temp.places ON places.path = reported.directory
            WHERE scanned.place = places.number AND scanned.name = reported.name
            """
        )

    def _opened(self, stack: ExitStack) -> list[SnapshotReader | None]:
        opened: dict[Path, SnapshotReader | None] = {}
        for path in self._others:
            if path is not None and path not in opened:
                try:
                    opened[path] = stack.enter_context(SnapshotReader(path))
                except OSError:
                    opened[path] = None
        return [None if path is None else opened[path] for path in self._others]

    def _place(self, path: bytes) -> int:
        numbers = self._known_numbers
        if path not in numbers:
            if len(numbers) >= ROWS_AT_ONCE:
                numbers.clear()
            numbers[path] = self._place_in_table(path)
        return numbers[path]

    def _place_in_table(self, path: bytes) -> int:
        row = self._connection.execute("SELECT number FROM temp.places WHERE path = ?", (path,)).fetchone()
        return self._new_place(path) if row is None else int(row[0])

    def _new_place(self, path: bytes) -> int:
        self._numbers += 1
        self._connection.execute("INSERT INTO temp.places (number, path) VALUES (?, ?)", (self._numbers, path))
        return self._numbers


def _row(
    number: int, name: bytes, found: ScannedEntry, others: list[SnapshotReader | None], directories: list[int | None]
) -> tuple[object, ...]:
    same = []
    identities: dict[int, bool] = {}
    for other, directory in zip(others, directories, strict=True):
        if found.kind != FILE or other is None or directory is None:
            same.append(False)
            continue
        if id(other) not in identities:
            identities[id(other)] = other.identity(directory, name) == (found.device, found.inode)
        same.append(identities[id(other)])
    return (number, name, *found.columns(), *same)
