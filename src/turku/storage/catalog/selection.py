"""Queries about a selection of a snapshot: what it has at and below some paths, in numbers."""

import heapq
from collections.abc import Iterator, Sequence

from turku.core.filesystem.paths import joined
from turku.storage.catalog.reader import Catalog

_FROM = "FROM versions JOIN directories ON directories.id = versions.directory"
_IN_SNAPSHOT = "first <= :position AND (last IS NULL OR last >= :position)"
_AT_OR_BELOW = """
    AND ((directories.path = :directory AND versions.name = :name)
        OR directories.path = :path OR (directories.path > :after AND directories.path < :end))
"""
_TOTALS = f"SELECT count(*), sum(size) FROM versions WHERE kind != 1 AND {_IN_SNAPSHOT}"  # noqa: S608  (ours)
_TOTALS_BELOW = f"SELECT count(*), sum(size) {_FROM} WHERE kind != 1 AND {_IN_SNAPSHOT} {_AT_OR_BELOW}"
_ENTRIES = f"SELECT directories.path, versions.name, size {_FROM} WHERE {_IN_SNAPSHOT} AND"


class Selection:
    """The entries of one snapshot at and below some paths. ``b""`` is the whole snapshot."""

    def __init__(self, catalog: Catalog, position: int, paths: Sequence[bytes]) -> None:
        self._connection = catalog.connection
        self._position = position
        self._paths = paths

    def totals(self) -> tuple[int, int]:
        """Return the number of entries that are not directories, and the sum of their sizes in bytes."""
        files = size_bytes = 0
        for path in self._paths:
            query = _TOTALS_BELOW if path else _TOTALS
            row = self._connection.execute(query, self._values(path)).fetchone()
            files += row[0]
            size_bytes += row[1] or 0
        return files, size_bytes

    def largest(self, limit: int) -> list[tuple[bytes, int]]:
        """Return the paths of the largest files, with their sizes in bytes."""
        found = self._entries("kind = 0", "ORDER BY size DESC LIMIT :limit", {"limit": limit})
        return heapq.nlargest(limit, found, key=lambda file: file[1])

    def may_have_holes(self, least_bytes: int, limit: int) -> list[bytes]:
        """Return the paths of files of ``least_bytes`` or more that have holes or were not examined for holes.

        At most ``limit`` paths are returned for each path of the selection.
        """
        values = {"least": least_bytes, "limit": limit}
        order = "ORDER BY directories.path, versions.name LIMIT :limit"
        found = self._entries("kind = 0 AND size >= :least AND has_holes IS NOT 0", order, values)
        return list(dict.fromkeys(path for path, _size_bytes in found))

    def directories(self) -> Iterator[bytes]:
        """Yield the paths of the directories."""
        return (path for path, _size_bytes in self._entries("kind = 1", "", {}))

    def _entries(self, condition: str, order: str, values: dict[str, int]) -> Iterator[tuple[bytes, int]]:
        for path in self._paths:
            query = f"{_ENTRIES} {condition} {_AT_OR_BELOW if path else ''} {order}"
            for directory, name, size_bytes in self._connection.execute(query, {**self._values(path), **values}):
                yield joined(directory, name), size_bytes

    def _values(self, path: bytes) -> dict[str, bytes | int]:
        directory, _slash, name = path.rpartition(b"/")
        return {
            "position": self._position,
            "directory": directory,
            "name": name,
            "path": path,
            "after": path + b"/",
            "end": path + b"0",
        }
