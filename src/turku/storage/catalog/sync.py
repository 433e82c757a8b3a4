"""Synchronization of the catalog with the snapshots: new ones are recorded, and removed ones are dropped.

The rows of a new snapshot are durable before it gets its name. After a crash, the next program that opens the catalog
compares the names. It drops a snapshot that is not on the disk, and reads one that is not in the catalog from its tree.
"""

import bisect
import itertools
import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING

from turku.core.units import count_of
from turku.errors import LockHeld, TurkuError
from turku.storage.catalog import database, versions
from turku.storage.catalog.scan import SnapshotReader
from turku.storage.catalog.staging import Staging
from turku.storage.catalog.streaming import StreamingIndexer
from turku.storage.catalog.versions import Neighbours
from turku.storage.disk import history
from turku.storage.disk.history import StoredSnapshot
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.disk.source_lookup import locked
from turku.storage.fs.timestamp_range import DatesAtLimit

if TYPE_CHECKING:
    from turku.storage.rsync.change_log import ChangeLog

MOST_READ_IN_A_BACKUP = 2
"""The most trees that are read during a backup.

If more are missing from the catalog, the machine does not wait for them.
"""
_ROUNDS_LIMIT = 3
_LOG = logging.getLogger(__name__)


def record(
    place: SourceDirectory,
    *,
    name: str,
    base: str | None,
    tree: Path,
    changes: "ChangeLog | None",
    moment: datetime,
    zone: tzinfo,
    indexer: StreamingIndexer | None = None,
    dates: DatesAtLimit | None = None,
) -> bool:
    """Record the snapshot that is about to get its name. Return True if the catalog has it.

    ``changes`` are the run's reported changes against ``base``, and ``indexer`` read a first backup during its
    transfer. ``dates`` receives the entries that have such a date. The source's lock must be held. If this fails, the
    next program that opens the catalog records the snapshot. Nothing is raised, as no backup fails for its catalog.
    """
    try:
        database.remove_unfinished(place)
        connection, staging = (database.connect(place), None) if indexer is None else indexer.hand_over()
        with closing(connection):
            return _record(connection, place, _NewSnapshot(name, base, tree, changes, moment, staging, dates), zone)
    except (TurkuError, OSError, sqlite3.Error) as error:
        if isinstance(error, sqlite3.Error) and database.is_damage(error):
            database.move_aside(place, str(error))
        _LOG.warning(
            "%s: the catalog was not updated: %s. The next command that opens it makes up for that", place.source, error
        )
    except Exception:
        # A fault of ours, which is no reason to lose the backup.
        _LOG.exception(
            "%s: the catalog was not updated. The next command that opens it makes up for that", place.source
        )
    return False


def forget(place: SourceDirectory, *, zone: tzinfo) -> None:
    """Drop the snapshots that left history. The source's lock must be held.

    What fails now is done when the catalog is opened.
    """
    if not database.exists(place):
        return
    try:
        with closing(database.connect(place)) as connection:
            _drop_removed(connection, history.stored_snapshots(place, zone))
    except (TurkuError, OSError, sqlite3.Error) as error:
        _LOG.warning(
            "%s: the catalog was not updated: %s. The next command that opens it makes up for that", place.source, error
        )


def rebuild(place: SourceDirectory, *, zone: tzinfo) -> int:
    """Read all snapshots into a new catalog, and return their number. The known checksums are lost.

    The old catalog stays until the new one is complete. The source's lock must be held. Raises CatalogUnusable,
    DurableWriteFailed.
    """
    with database.rebuilding(place) as connection:
        return _index(connection, place, history.stored_snapshots(place, zone))


def reconcile(
    connection: sqlite3.Connection, place: SourceDirectory, zone: tzinfo, *, go_on: Callable[[], bool] = lambda: True
) -> None:
    """Bring the catalog in step with the disk, as far as a running backup allows it.

    ``go_on`` is called before each tree.
    """
    for _round in range(_ROUNDS_LIMIT):
        stored = history.stored_snapshots(place, zone)
        known = positions(connection)
        if set(known) == {os.fsencode(each.name) for each in stored} and not _misplaced(stored, known):
            return
        try:
            with locked(place):
                _drop_removed(connection, history.stored_snapshots(place, zone))
        except (LockHeld, OSError, TurkuError):
            # The running backup's snapshot may be in the catalog before it has its name.
            pass
        stored = history.stored_snapshots(place, zone)
        for name in _misplaced(stored, positions(connection)):
            _drop(connection, name, stored)
        missing = len({os.fsencode(each.name) for each in stored} - positions(connection).keys())
        if missing:
            _LOG.info("%s: reading %s into the catalog", place.source, count_of(missing, "snapshot"))
        _index(connection, place, stored, go_on)


def positions(connection: sqlite3.Connection) -> dict[bytes, int]:
    """Return the positions of the snapshots in the catalog, by name."""
    return dict(connection.execute("SELECT name, position FROM snapshots"))


@dataclass(frozen=True)
class _NewSnapshot:
    """A tree that is about to get its name."""

    name: str
    base: str | None
    tree: Path
    changes: "ChangeLog | None"
    moment: datetime
    staging: Staging | None
    """The staged tree of a first backup, if the indexer read it during the transfer."""
    dates: DatesAtLimit | None


def _record(connection: sqlite3.Connection, place: SourceDirectory, new: _NewSnapshot, zone: tzinfo) -> bool:
    stored = history.stored_snapshots(place, zone)
    _drop_removed(connection, stored)
    for misplaced in _misplaced(stored, positions(connection)):
        _drop(connection, misplaced, stored)
    known = positions(connection)
    missing = sum(os.fsencode(each.name) not in known for each in stored)
    if missing > MOST_READ_IN_A_BACKUP:
        _LOG.info(
            "%s: %d snapshots are missing from the catalog. 'turku-storage catalog update' reads them",
            place.source,
            missing,
        )
        return False
    _index(connection, place, stored)
    known = positions(connection)
    base = None if new.base is None else known.get(os.fsencode(new.base))
    newest = max(known.values(), default=None)
    is_reported = new.changes is not None and new.changes.lists_every_change and base is not None
    # A file that a failed run transferred has another size or time than in the base.
    tells_content = is_reported or (new.changes is not None and new.changes.lists_every_written_file)
    if is_reported and base == newest and newest is not None and not new.changes:
        # Nothing changed: this is one more name for the same position.
        with database.writing(connection):
            _insert(connection, new.name, newest, new.moment)
        return True
    staging = new.staging if newest is None else None
    if staging is None:
        staging = Staging(
            connection,
            new.tree,
            base=None if new.base is None else place.tree(new.base),
            before=next((each.path for each in reversed(stored) if known.get(os.fsencode(each.name)) == newest), None),
            after=None,
        )
        staging.scan(new.changes, may_trust=is_reported and base == newest)
        staging.compute_checksums(reports_every_write=tells_content and base == newest)
    if new.dates is not None and any(new.dates.limits_ns):
        new.dates.note(*staging.entries_dated(new.dates.limits_ns))
    with database.writing(connection):
        if positions(connection) != known:
            _LOG.info("%s: another process has changed the catalog meanwhile", place.source)
            return False
        neighbours = Neighbours(newest, None)
        position = versions.GAP if newest is None else newest + versions.GAP
        versions.merge(
            connection, position, neighbours, base=base, is_whole=staging.is_whole, reports_every_write=tells_content
        )
        _insert(connection, new.name, position, new.moment)
    staging.drop_tables()
    return True


def _index(
    connection: sqlite3.Connection,
    place: SourceDirectory,
    stored: tuple[StoredSnapshot, ...],
    go_on: Callable[[], bool] = lambda: True,
) -> int:
    """Read each snapshot that the catalog lacks, oldest first, into its place. Return their number."""
    count = 0
    before: StoredSnapshot | None = None
    for number, snapshot in enumerate(stored):
        known = positions(connection)
        if os.fsencode(snapshot.name) not in known:
            if not go_on():
                return count
            after = next((each for each in stored[number + 1 :] if os.fsencode(each.name) in known), None)
            if not _index_one(connection, place, snapshot, before, after):
                continue
            count += 1
        before = snapshot
    return count


def _index_one(
    connection: sqlite3.Connection,
    place: SourceDirectory,
    snapshot: StoredSnapshot,
    before: StoredSnapshot | None,
    after: StoredSnapshot | None,
) -> bool:
    moment = snapshot.moment
    if before is not None and before.path == snapshot.path:
        with database.writing(connection):
            _insert(connection, snapshot.name, positions(connection)[os.fsencode(before.name)], moment)
        return True
    before_tree = None if before is None else before.path
    staging = Staging(
        connection, snapshot.path, base=before_tree, before=before_tree, after=None if after is None else after.path
    )
    try:
        staging.scan(None, may_trust=False)
    except FileNotFoundError:
        # Retention removed it meanwhile.
        return False
    with database.writing(connection):
        known = positions(connection)
        if os.fsencode(snapshot.name) in known or not place.has(snapshot.name):
            return False
        neighbours = _neighbours(known, before, after)
        position = neighbours.position()
        if position is None:
            versions.spread(connection)
            known = positions(connection)
            neighbours = _neighbours(known, before, after)
            position = neighbours.position()
        if position is None or not _are_adjacent(known, neighbours):
            return False
        versions.merge(
            connection, position, neighbours, base=neighbours.before, is_whole=True, reports_every_write=False
        )
        _insert(connection, snapshot.name, position, moment)
    staging.drop_tables()
    return True


def _neighbours(known: dict[bytes, int], before: StoredSnapshot | None, after: StoredSnapshot | None) -> Neighbours:
    found = (None if each is None else known.get(os.fsencode(each.name)) for each in (before, after))
    return Neighbours(*found)


def _are_adjacent(known: dict[bytes, int], neighbours: Neighbours) -> bool:
    """Return True if no other process has put a snapshot between the two or removed one of them meanwhile."""
    ordered: list[int | None] = [None, *sorted(set(known.values())), None]
    return (neighbours.before, neighbours.after) in itertools.pairwise(ordered)


def _misplaced(stored: tuple[StoredSnapshot, ...], known: dict[bytes, int]) -> list[bytes]:
    """Return the snapshots whose place in the catalog does not match their age.

    Renamed snapshots and those made with a wrong clock are such. The result is the smallest set without which the rest
    is in order. Each of them is read again.
    """
    names = (os.fsencode(each.name) for each in stored)
    placed = [(name, known[name]) for name in names if name in known]
    # The longest sequence of positions that does not descend. For each length: the lowest end of such a sequence, and
    # the snapshot at that end.
    ends: list[int] = []
    last: list[int] = []
    before: list[int | None] = []
    for number, (_name, position) in enumerate(placed):
        length = bisect.bisect_right(ends, position)
        ends[length : length + 1] = [position]
        last[length : length + 1] = [number]
        before.append(last[length - 1] if length else None)
    in_order: set[int] = set()
    at = last[-1] if last else None
    while at is not None:
        in_order.add(at)
        at = before[at]
    return [name for number, (name, _position) in enumerate(placed) if number not in in_order]


def _drop_removed(connection: sqlite3.Connection, stored: tuple[StoredSnapshot, ...]) -> None:
    there = {os.fsencode(each.name) for each in stored}
    for name in positions(connection):
        if name not in there:
            _drop(connection, name, stored)


def _drop(connection: sqlite3.Connection, name: bytes, stored: tuple[StoredSnapshot, ...]) -> None:
    with database.writing(connection), ExitStack() as stack:
        known = positions(connection)
        position = known.pop(name, None)
        if position is None:
            return
        connection.execute("DELETE FROM snapshots WHERE name = ?", (name,))
        if position in known.values():
            return
        before = max((each for each in known.values() if each < position), default=None)
        after = min((each for each in known.values() if each > position), default=None)
        trees = {known.get(os.fsencode(each.name)): each.path for each in stored}
        versions.drop(connection, Neighbours(before, after), _comparison(stack, trees.get(before), trees.get(after)))


def _comparison(stack: ExitStack, before: Path | None, after: Path | None) -> versions.IsSame:
    try:
        if before is None or after is None:
            raise FileNotFoundError
        trees = stack.enter_context(SnapshotReader(before)), stack.enter_context(SnapshotReader(after))
    except OSError:
        return lambda _directory, _name: False

    def is_same(directory: bytes, name: bytes) -> bool:
        identities = []
        for tree in trees:
            descriptor = tree.find_directory(directory)
            identities.append(None if descriptor is None else tree.identity(descriptor, name))
        return identities[0] is not None and identities[0] == identities[1]

    return is_same


def _insert(connection: sqlite3.Connection, name: str, position: int, moment: datetime | None) -> None:
    connection.execute(
        "INSERT INTO snapshots (name, position, moment) VALUES (?, ?, ?)",
        (os.fsencode(name), position, 0 if moment is None else int(moment.timestamp())),
    )
