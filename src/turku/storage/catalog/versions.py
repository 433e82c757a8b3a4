"""Conversion of a staged snapshot into rows: versions that continue are left alone, new ones added, ended ones closed.

A row is a version of a path, from the position ``first`` to the position ``last``. Two versions of a file are one if
all that a directory shows of them is equal and their content is known to be equal: it is the same file on the disk, or
has the same checksum, or the run that made it reported that it did not write it.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from turku.core.filesystem.paths import joined

GAP = 1024
"""The distance between the positions of two successive snapshots."""

_MATCH = """
UPDATE temp.scanned SET version = (
    SELECT versions.id FROM temp.places JOIN versions ON versions.directory = places.id
    WHERE places.number = scanned.place AND versions.name = scanned.name
        AND versions.first <= :before AND (versions.last IS NULL OR versions.last >= :before)
        AND versions.kind = scanned.kind AND versions.size = scanned.size AND versions.mode = scanned.mode
        AND versions.uid = scanned.uid AND versions.gid = scanned.gid AND versions.mtime_ns = scanned.mtime_ns
        AND versions.link_target IS scanned.link_target
        AND (versions.attributes IS scanned.attributes OR scanned.attributes IS NULL OR (versions.attributes IS NULL
            AND (scanned.same_before OR NOT scanned.was_reported OR scanned.attributes = X'')))
        AND (scanned.kind <> 0 OR scanned.same_before OR versions.checksum = scanned.checksum
            OR (:reports_every_write AND NOT scanned.was_reported)
            OR (:unknown_is_same AND versions.checksum IS NULL AND scanned.checksum IS NULL))
)
WHERE version IS NULL
"""
# A tree with hard links into another one shows by itself which files differ. Where the mode makes each file anew, as a
# clone or in a subvolume, two files of equal time and size without checksums count as one.
_SHARES_FILES = "SELECT 1 FROM temp.scanned WHERE kind = 0 AND (same_base OR same_before OR same_after) LIMIT 1"
_CARRY_OVER = """
UPDATE temp.scanned SET checksum = (
    SELECT versions.checksum FROM temp.places JOIN versions ON versions.directory = places.id
    WHERE places.number = scanned.place AND versions.name = scanned.name
        AND versions.first <= :base AND (versions.last IS NULL OR versions.last >= :base)
        AND versions.kind = 0 AND versions.size = scanned.size AND versions.mtime_ns = scanned.mtime_ns
)
WHERE version IS NULL AND kind = 0 AND checksum IS NULL AND (same_base OR (:reports_every_write AND NOT was_reported))
"""
_CLOSE_ALL_UNMATCHED = """
UPDATE versions SET last = :before
WHERE last IS NULL AND id NOT IN (SELECT version FROM temp.scanned WHERE version IS NOT NULL)
"""
_CLOSE_NAMED_UNMATCHED = """
UPDATE versions SET last = :before WHERE last IS NULL AND id IN (
    SELECT versions.id FROM temp.scanned JOIN temp.places ON places.number = scanned.place
        JOIN versions ON versions.directory = places.id AND versions.name = scanned.name
    WHERE scanned.version IS NULL AND versions.last IS NULL
    UNION ALL
    SELECT versions.id FROM temp.deleted JOIN directories ON directories.path = deleted.directory
        JOIN versions ON versions.directory = directories.id AND versions.name = deleted.name
    WHERE versions.last IS NULL
)
"""
_REMOVED_DIRECTORIES = """
SELECT places.path, scanned.name FROM temp.scanned JOIN temp.places ON places.number = scanned.place
    JOIN versions ON versions.directory = places.id AND versions.name = scanned.name
WHERE scanned.version IS NULL AND scanned.kind <> 1 AND versions.last IS NULL AND versions.kind = 1
UNION ALL
SELECT deleted.directory, deleted.name FROM temp.deleted JOIN directories ON directories.path = deleted.directory
    JOIN versions ON versions.directory = directories.id AND versions.name = deleted.name
WHERE versions.last IS NULL AND versions.kind = 1
"""
_CLOSE_BELOW = """
UPDATE versions SET last = :before WHERE last IS NULL AND directory IN (
    SELECT id FROM directories WHERE path = :path OR (path > :begin AND path < :end)
)
"""
_INSERT = """
INSERT INTO versions
    (directory, name, first, last, kind, size, mode, uid, gid, mtime_ns, checksum, link_target, attributes, has_holes)
SELECT places.id, scanned.name, :position, :last, kind, size, mode, uid, gid, mtime_ns, checksum, link_target,
    attributes, has_holes
FROM temp.scanned JOIN temp.places ON places.number = scanned.place WHERE version IS NULL
ORDER BY places.id, scanned.name
"""
# The snapshot lies between two others. A version that both of them have and it lacks is split in two.
_SPLIT = """
INSERT INTO versions
    (directory, name, first, last, kind, size, mode, uid, gid, mtime_ns, checksum, link_target, checked, attributes,
    has_holes)
SELECT directory, name, :after, last, kind, size, mode, uid, gid, mtime_ns, checksum, link_target, checked, attributes,
    has_holes
FROM versions WHERE first <= :before AND (last IS NULL OR last >= :after)
    AND id NOT IN (SELECT version FROM temp.scanned WHERE version IS NOT NULL)
"""
_END_SPLIT = """
UPDATE versions SET last = :before WHERE first <= :before AND (last IS NULL OR last >= :after)
    AND id NOT IN (SELECT version FROM temp.scanned WHERE version IS NOT NULL)
"""
_EXTEND = """
UPDATE versions SET last = :position WHERE last >= :before AND last < :after
    AND id IN (SELECT version FROM temp.scanned WHERE version IS NOT NULL)
"""
_MATCH_AFTER = """
UPDATE temp.scanned SET version = (
    SELECT versions.id FROM temp.places JOIN versions ON versions.directory = places.id
    WHERE places.number = scanned.place AND versions.name = scanned.name
        AND versions.first > :before AND versions.first <= :after AND (versions.last IS NULL OR versions.last >= :after)
        AND versions.kind = scanned.kind AND versions.size = scanned.size AND versions.mode = scanned.mode
        AND versions.uid = scanned.uid AND versions.gid = scanned.gid AND versions.mtime_ns = scanned.mtime_ns
        AND versions.link_target IS scanned.link_target
        AND (versions.attributes IS scanned.attributes OR scanned.attributes IS NULL OR versions.attributes IS NULL)
        AND (scanned.kind <> 0 OR scanned.same_after OR versions.checksum = scanned.checksum
            OR (:unknown_is_same AND versions.checksum IS NULL AND scanned.checksum IS NULL))
)
WHERE version IS NULL
"""
_BEGIN_EARLIER = """
UPDATE versions SET first = :position WHERE first > :before AND first <= :after
    AND id IN (SELECT version FROM temp.scanned WHERE version IS NOT NULL)
"""


@dataclass(frozen=True)
class Neighbours:
    """The place of a snapshot: the positions of the snapshots made before and after it, if there are any."""

    before: int | None
    after: int | None

    def position(self) -> int | None:
        """Return a position between the two, or None if there is no room left."""
        if self.before is None:
            return GAP if self.after is None else self.after - GAP
        if self.after is None:
            return self.before + GAP
        middle = (self.before + self.after) // 2
        return middle if self.before < middle < self.after else None


def merge(
    connection: sqlite3.Connection,
    position: int,
    neighbours: Neighbours,
    *,
    base: int | None,
    is_whole: bool,
    reports_every_write: bool,
) -> None:
    """Write the staged entries as the state at ``position``, in the caller's transaction.

    ``base`` is the position of the snapshot that the run was built upon. ``reports_every_write`` says that the run
    named every file whose content it wrote. Without ``is_whole`` they are the changes since ``neighbours.before``.
    """
    connection.execute("INSERT OR IGNORE INTO directories (path) SELECT path FROM temp.places ORDER BY path")
    connection.execute(
        "UPDATE temp.places SET id = (SELECT directories.id FROM directories WHERE directories.path = places.path)"
    )
    values: dict[str, object] = {
        "position": position,
        "before": neighbours.before,
        "after": neighbours.after,
        "base": base,
        "reports_every_write": reports_every_write and base == neighbours.before,
        "last": None if neighbours.after is None else position,
        "unknown_is_same": is_whole and not reports_every_write and not connection.execute(_SHARES_FILES).fetchone(),
    }
    carry = {"base": base, "reports_every_write": reports_every_write}
    if base is not None and base != neighbours.before:
        connection.execute(_CARRY_OVER, carry)
    if neighbours.before is not None:
        connection.execute(_MATCH, values)
        if base == neighbours.before:
            connection.execute(_CARRY_OVER, carry)
    if neighbours.after is not None:
        _make_room(connection, values)
    elif is_whole:
        connection.execute(_CLOSE_ALL_UNMATCHED, values)
    else:
        removed = [joined(directory, name) for directory, name in connection.execute(_REMOVED_DIRECTORIES)]
        connection.execute(_CLOSE_NAMED_UNMATCHED, values)
        for path in removed:
            values |= {"path": path, "begin": path + b"/", "end": path + b"0"}
            connection.execute(_CLOSE_BELOW, values)
    connection.execute(_INSERT, values)


def _make_room(connection: sqlite3.Connection, values: dict[str, object]) -> None:
    if values["before"] is not None:
        connection.execute(_SPLIT, values)
        # The new rows begin at `after`, so they are not among those ended here.
        connection.execute(_END_SPLIT, values)
        connection.execute(_EXTEND, values)
    else:
        values = {**values, "before": -(1 << 62)}
    connection.execute(_MATCH_AFTER, values)
    connection.execute(_BEGIN_EARLIER, values)


_TOUCHED = """
CREATE TEMP TABLE touched AS SELECT DISTINCT directory FROM versions WHERE last > :before AND last < :after
    AND first > :before
"""
_DELETE = "DELETE FROM versions WHERE last > :before AND last < :after AND first > :before"
_TOUCHED_NEWEST = "CREATE TEMP TABLE touched AS SELECT DISTINCT directory FROM versions WHERE first > :before"
_DELETE_NEWEST = "DELETE FROM versions WHERE first > :before"
_OPEN_AGAIN = "UPDATE versions SET last = NULL WHERE last >= :before"
_DELETE_EMPTY_DIRECTORIES = """
DELETE FROM directories WHERE id IN (SELECT directory FROM temp.touched)
    AND NOT EXISTS (SELECT 1 FROM versions WHERE versions.directory = directories.id)
"""
_MERGEABLE = """
CREATE TEMP TABLE mergeable AS
SELECT former.id AS former, latter.id AS latter, latter.last AS last,
    coalesce(former.checksum, latter.checksum) AS checksum,
    CASE WHEN former.checksum = latter.checksum THEN max(former.checked, latter.checked) ELSE 0 END AS checked,
    former.kind <> 0 OR coalesce(former.checksum = latter.checksum, 0) AS is_sure,
    former.directory AS directory, former.name AS name
FROM versions AS former JOIN versions AS latter
    ON latter.directory = former.directory AND latter.name = former.name
        AND latter.first > :before AND latter.first <= :after AND (latter.last IS NULL OR latter.last >= :after)
WHERE former.last >= :before AND former.last < :after AND former.first <= :before
    AND former.kind = latter.kind AND former.size = latter.size AND former.mode = latter.mode
    AND former.uid = latter.uid AND former.gid = latter.gid AND former.mtime_ns = latter.mtime_ns
    AND former.link_target IS latter.link_target AND former.attributes IS latter.attributes
    AND (former.checksum IS NULL OR latter.checksum IS NULL OR former.checksum = latter.checksum)
"""
_UNSURE = """
SELECT mergeable.rowid, directories.path, mergeable.name
FROM temp.mergeable JOIN directories ON directories.id = mergeable.directory WHERE NOT is_sure ORDER BY directories.path
"""

IsSame = Callable[[bytes, bytes], bool]
"""A test whether the name (second) in the directory (first) is the same file on both sides of a removed snapshot."""


def drop(connection: sqlite3.Connection, neighbours: Neighbours, is_same: IsSame) -> None:
    """Remove the versions that only the position between these two had, and join versions that become one."""
    connection.execute("DROP TABLE IF EXISTS temp.touched")
    before = -(1 << 62) if neighbours.before is None else neighbours.before
    values = {"before": before, "after": neighbours.after}
    if neighbours.after is None:
        connection.execute(_TOUCHED_NEWEST, values)
        connection.execute(_DELETE_NEWEST, values)
        connection.execute(_OPEN_AGAIN, values)
    else:
        connection.execute(_TOUCHED, values)
        connection.execute(_DELETE, values)
        connection.execute("DROP TABLE IF EXISTS temp.mergeable")
        connection.execute(_MERGEABLE, values)
        for row, directory, name in connection.execute(_UNSURE).fetchall():
            if not is_same(directory, name):
                connection.execute("DELETE FROM temp.mergeable WHERE rowid = ?", (row,))
        connection.execute("DELETE FROM versions WHERE id IN (SELECT latter FROM temp.mergeable)")
        connection.execute(
            "UPDATE versions SET last = mergeable.last, checksum = mergeable.checksum, checked = mergeable.checked "
            "FROM temp.mergeable WHERE versions.id = mergeable.former"
        )
        connection.execute("DROP TABLE temp.mergeable")
        # No row begins or ends at a position without a snapshot, as another one may get a position near it.
        connection.execute("UPDATE versions SET first = :after WHERE first > :before AND first < :after", values)
        connection.execute("UPDATE versions SET last = :before WHERE last > :before AND last < :after", values)
    connection.execute(_DELETE_EMPTY_DIRECTORIES)
    connection.execute("DROP TABLE temp.touched")


def spread(connection: sqlite3.Connection) -> None:
    """Restore the gaps between all positions."""
    positions = [row[0] for row in connection.execute("SELECT DISTINCT position FROM snapshots ORDER BY position")]
    if not positions:
        return
    # Above all existing positions, so that no row gets another's key on the way.
    start = positions[-1] + GAP
    connection.execute("CREATE TEMP TABLE spread (old INTEGER PRIMARY KEY, new INTEGER)")
    connection.executemany(
        "INSERT INTO temp.spread VALUES (?, ?)", [(old, start + number * GAP) for number, old in enumerate(positions)]
    )
    connection.execute(
        "UPDATE versions SET first = (SELECT new FROM temp.spread WHERE old = first), "
        "last = (SELECT new FROM temp.spread WHERE old = last)"
    )
    connection.execute("UPDATE snapshots SET position = (SELECT new FROM temp.spread WHERE old = position)")
    connection.execute("DROP TABLE temp.spread")
