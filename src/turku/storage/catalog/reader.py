"""Queries of a catalog: its snapshots, their entries, and the versions of a path."""

import os
import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, Self, TypeAlias

from turku.core.filesystem.paths import split
from turku.core.log import one_line
from turku.errors import CatalogUnusable, NotInHistory
from turku.storage.catalog import database, statements, sync
from turku.storage.catalog.entry import DIRECTORY, KINDS, CatalogEntry, Difference, time_of
from turku.storage.catalog.patterns import Matcher, matcher
from turku.storage.catalog.scope import WHOLE, Scope
from turku.storage.disk import history
from turku.storage.disk.history import StoredSnapshot
from turku.storage.disk.source_directory import SourceDirectory

_PAGE = 2000
"""The number of rows read at once. Nothing is locked between two pages, however slow the reader is."""
_Row: TypeAlias = tuple[
    int, bytes, int, int | None, int, int, int, int, int, int | bytes, bytes | None, bytes | None, int, bytes | None
]
_Rows: TypeAlias = list[Any]


@dataclass(frozen=True)
class CatalogedSnapshot:
    """A snapshot in the catalog."""

    name: str
    moment: datetime | None
    """The time of the snapshot."""
    stored: StoredSnapshot
    position: int

    def is_date_in_doubt(self, now: datetime) -> bool:
        """Return True if the stored snapshot's date is in doubt."""
        return self.stored.is_date_in_doubt(now)


class Catalog:
    """The catalog of one source, opened by ``open_catalog`` and closed at the end of its block.

    It contains only the snapshots and paths of its scope: each row passes ``_entry``, and each name comes from
    ``_snapshots``.
    """

    def __init__(
        self, connection: sqlite3.Connection, place: SourceDirectory, zone: tzinfo, *, scope: Scope = WHOLE
    ) -> None:
        self.place = place
        self._connection = connection
        self._scope = scope
        known = sync.positions(connection)
        self._snapshots = tuple(
            CatalogedSnapshot(each.name, each.moment, each, known[os.fsencode(each.name)])
            for each in history.stored_snapshots(place, zone)
            if os.fsencode(each.name) in known and scope.has_snapshot(each.name)
        )
        self._by_name = {each.name: each for each in self._snapshots}
        self._positions = [each.position for each in self._snapshots]
        self._spans: dict[tuple[int, int | None], tuple[str, str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def snapshots(self) -> tuple[CatalogedSnapshot, ...]:
        """Return the snapshots, oldest first."""
        return self._snapshots

    def entry(self, snapshot: str, path: bytes) -> CatalogEntry | None:
        """Return the path in a snapshot, or None if it has none. Raises NotInHistory for an unknown snapshot."""
        directory, name = split(path)
        found = self._rows(statements.ONE, self._position(snapshot), directory, name=name)
        return next((entry for row in found if (entry := self._entry(directory, row))), None)

    def list(self, snapshot: str, path: bytes = b"") -> Iterator[CatalogEntry]:
        """Yield the entries of a directory of the snapshot, by name. ``b""`` is the source itself.

        Raises NotInHistory for an unknown snapshot, or a path that is not a directory there.
        """
        position = self._position(snapshot)
        if path:
            found = self.entry(snapshot, path)
            if found is None or KINDS.index(found.kind) != DIRECTORY:
                raise NotInHistory(
                    f"{one_line(path)} is {'not in' if found is None else f'a {found.kind} in'} {snapshot}",
                    hint="'versions SOURCE PATH' shows the snapshots that have it, 'find' searches all of them",
                )
        return self._listed(position, path)

    def files(self, snapshot: str, prefix: bytes = b"") -> Iterator[CatalogEntry]:
        """Yield the path and everything below it, directory by directory. ``b""`` is the whole snapshot.

        Yields nothing for a path that is not there. Raises NotInHistory for an unknown snapshot.
        """
        position = self._position(snapshot)
        return self._files(snapshot, position, prefix)

    def history(self, path: bytes) -> tuple[CatalogEntry, ...]:
        """Return all versions of a path, oldest first. Empty for a path that was never there.

        A version that was deleted and came back is there twice. ``first`` and ``last`` span one unbroken series.
        """
        directory, name = split(path)
        rows = self._query(statements.ALL, directory, name)
        return tuple(entry for row in rows if (entry := self._entry(directory, row)))

    def find(self, pattern: bytes, *, snapshot: str | None = None, ignore_case: bool = False) -> Iterator[CatalogEntry]:
        """Yield the newest version of each matching path, directory by directory, or that of one snapshot.

        ``patterns.matcher`` defines what matches.
        """
        position = None if snapshot is None else self._position(snapshot)
        return self._found(matcher(pattern, ignore_case=ignore_case), position)

    def diff(self, before: str, after: str) -> Iterator[Difference]:
        """Yield the differences between two snapshots, directory by directory.

        Two files that are equal except for a checksum that is not known yet do not count as different.
        """
        return self._differences(self._position(before), self._position(after))

    def oldest_checked(self, limit: int) -> Sequence[CatalogEntry]:
        """Return the versions of files whose content was not compared for the longest time, or never."""
        rows = self._ask(statements.OLDEST_CHECKED, {"limit": limit})
        return [entry for *row, directory in rows if (entry := self._entry(directory, tuple(row)))]

    def with_checksum(self, checksum: bytes) -> Sequence[CatalogEntry]:
        """Return all versions of files with this content."""
        rows = self._ask(statements.WITH_CHECKSUM, {"checksum": checksum})
        return [entry for *row, directory in rows if (entry := self._entry(directory, tuple(row)))]

    def set_checksums(self, found: Sequence[tuple[int, bytes]]) -> None:
        """Set the checksums of these versions, in one transaction."""
        with self.writing() as connection:
            connection.executemany(
                "UPDATE versions SET checksum = ? WHERE id = ?", [(checksum, version) for version, checksum in found]
            )

    def set_attributes(self, found: Sequence[tuple[int, bytes]]) -> None:
        """Set the attributes of these versions, in one transaction."""
        with self.writing() as connection:
            connection.executemany(
                "UPDATE versions SET attributes = ? WHERE id = ?", [(digest, version) for version, digest in found]
            )

    def set_checked(self, versions: Sequence[int], moment: datetime) -> None:
        """Set the time at which the content of these versions was compared."""
        stamp = int(moment.timestamp())
        with self.writing() as connection:
            connection.executemany(
                "UPDATE versions SET checked = ? WHERE id = ?", [(stamp, version) for version in versions]
            )

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Run the block in a transaction, for a scrub's own tables in this file."""
        try:
            with database.writing(self._connection):
                yield self._connection
        except sqlite3.Error as error:
            raise self._broken(error) from error

    @property
    def connection(self) -> sqlite3.Connection:
        """Return the connection, for the tables of others.

        Rows of ``snapshots``, ``directories`` and ``versions`` are changed in this package only.
        """
        return self._connection

    def _ask(self, query: str, values: Mapping[str, object]) -> _Rows:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _broken(self, error: sqlite3.Error) -> CatalogUnusable:
        """Return the exception to raise. A damaged file is moved aside for a new one."""
        if database.is_damage(error):
            database.move_aside(self.place, str(error))
        return database.unusable(self.place, error)

    def _position(self, snapshot: str) -> int:
        found = self._by_name.get(snapshot)
        if found is None:
            raise NotInHistory(
                f"there is no snapshot {one_line(snapshot)} of {self.place.source}", hint="'snapshots' shows which are"
            )
        return found.position

    def _rows(self, query: str, position: int, directory: bytes, *, name: bytes) -> _Rows:
        values = {"position": position, "directory": directory, "name": name, "limit": _PAGE}
        return self._ask(query, values)

    def _query(self, query: str, directory: bytes, name: bytes) -> _Rows:
        return self._ask(query, {"directory": directory, "name": name})

    def _listed(self, position: int, directory: bytes) -> Iterator[CatalogEntry]:
        name = b""
        while True:
            rows = self._rows(statements.PAGE_OF_DIRECTORY, position, directory, name=name)
            for row in rows:
                entry = self._entry(directory, row)
                if entry is not None:
                    yield entry
            if len(rows) < _PAGE:
                return
            name = rows[-1][1]

    def _files(self, snapshot: str, position: int, prefix: bytes) -> Iterator[CatalogEntry]:
        if prefix:
            top = self.entry(snapshot, prefix)
            if top is None:
                return
            yield top
            if KINDS.index(top.kind) != DIRECTORY:
                return
        for directory in self._directories(prefix):
            yield from self._listed(position, directory)

    def _directories(self, top: bytes) -> Iterator[bytes]:
        """Yield the directories of all snapshots: ``top`` and everything below it, by path."""
        if top:
            if self._ask("SELECT 1 FROM directories WHERE path = :path", {"path": top}):
                yield top
            after, end = top + b"/", top + b"0"
        else:
            if self._ask("SELECT 1 FROM directories WHERE path = X''", {}):
                yield b""
            after, end = b"", None
        while True:
            rows = self._ask(
                "SELECT path FROM directories WHERE path > :after AND (:end IS NULL OR path < :end) "
                "ORDER BY path LIMIT :limit",
                {"after": after, "end": end, "limit": _PAGE},
            )
            yield from (row[0] for row in rows)
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    def _found(self, matcher: Matcher, position: int | None) -> Iterator[CatalogEntry]:
        for directory in self._directories(b""):
            name = b""
            while True:
                values = {"directory": directory, "name": name, "limit": _PAGE}
                names = self._ask(statements.NAMES, values)
                for (each,) in names:
                    if matcher(directory, each):
                        yield from self._newest(directory, each, position)
                if len(names) < _PAGE:
                    break
                name = names[-1][0]

    def _newest(self, directory: bytes, name: bytes, position: int | None) -> Iterator[CatalogEntry]:
        if position is None:
            rows = self._query(statements.ALL, directory, name)
        else:
            rows = self._rows(statements.ONE, position, directory, name=name)
        for row in reversed(rows):
            entry = self._entry(directory, row)
            if entry is not None:
                yield entry
                return

    def _differences(self, before: int, after: int) -> Iterator[Difference]:
        self._ask(statements.DIFFERING, {})
        [(run,)] = self._ask("SELECT 1 + coalesce(max(run), 0) FROM temp.differing", {})
        # One statement, so that both sides are of one moment and nothing is locked while the reader goes on.
        values = {"run": run, "older": min(before, after), "newer": max(before, after), "is_back": before > after}
        self._ask(statements.FILL_DIFFERING, values)
        try:
            number, waiting = 0, None
            while True:
                rows = self._ask(statements.PAGE_OF_DIFFERING, {"run": run, "number": number, "limit": _PAGE})
                for _number, is_after, directory, *row in rows:
                    entry = self._entry(directory, tuple(row))
                    if entry is None:
                        continue
                    if waiting is not None and is_after and waiting.path == entry.path:
                        if not waiting.may_be(entry):
                            yield Difference(waiting, entry)
                        waiting = None
                        continue
                    if waiting is not None:
                        yield Difference(waiting, None)
                        waiting = None
                    if is_after:
                        yield Difference(None, entry)
                    else:
                        waiting = entry
                if len(rows) < _PAGE:
                    break
                number = rows[-1][0]
            if waiting is not None:
                yield Difference(waiting, None)
        finally:
            self._ask("DELETE FROM temp.differing WHERE run = :run", {"run": run})

    def _entry(self, directory: bytes, row: _Row) -> CatalogEntry | None:
        """Return the entry of a row, or None if it is out of scope or its snapshots are all gone."""
        version, name, first, last, kind, size, mode, uid, gid, mtime_ns, checksum, link_target, checked, digest = row
        path = directory + b"/" + name if directory else name
        if not self._scope.has_path(path):
            return None
        span = self._spans.get((first, last))
        if span is None:
            low = bisect_left(self._positions, first)
            high = len(self._positions) if last is None else bisect_right(self._positions, last)
            if low >= high:
                return None
            span = self._snapshots[low].name, self._snapshots[high - 1].name
            self._spans[first, last] = span
        return CatalogEntry(
            path,
            KINDS[kind],
            size,
            mode,
            uid,
            gid,
            time_of(mtime_ns),
            checksum,
            link_target,
            span[0],
            span[1],
            version,
            checked,
            digest,
        )
