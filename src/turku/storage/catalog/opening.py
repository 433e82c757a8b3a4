"""Opening of a catalog. It is brought in step with the disk first."""

import sqlite3
from collections.abc import Callable
from datetime import tzinfo

from turku.storage.catalog import database, sync
from turku.storage.catalog.reader import Catalog
from turku.storage.catalog.scope import WHOLE, Scope
from turku.storage.disk.source_directory import SourceDirectory


def open_catalog(place: SourceDirectory, *, zone: tzinfo, scope: Scope = WHOLE) -> Catalog:
    """Return the source's catalog, in step with the disk, as a context manager.

    ``zone`` is the time zone of the snapshots' names. The catalog contains nothing outside ``scope``. The first reader
    of a history without a catalog waits until its trees are read. Raises CatalogUnusable.
    """
    return _open(place, zone, lambda: True, scope)


def update(place: SourceDirectory, *, zone: tzinfo, go_on: Callable[[], bool]) -> None:
    """Read the snapshots that no catalog has yet, while ``go_on`` returns True. Raises CatalogUnusable."""
    _open(place, zone, go_on, WHOLE).close()


def _open(place: SourceDirectory, zone: tzinfo, go_on: Callable[[], bool], scope: Scope) -> Catalog:
    try:
        return _opened(place, zone, go_on, scope)
    except sqlite3.Error as error:
        if not database.is_damage(error):
            raise database.unusable(place, error) from error
        database.move_aside(place, str(error))
    try:
        return _opened(place, zone, go_on, scope)
    except sqlite3.Error as error:
        raise database.unusable(place, error) from error


def _opened(place: SourceDirectory, zone: tzinfo, go_on: Callable[[], bool], scope: Scope) -> Catalog:
    connection = database.connect(place)
    try:
        sync.reconcile(connection, place, zone, go_on=go_on)
        return Catalog(connection, place, zone, scope=scope)
    except OSError as error:
        connection.close()
        raise database.unusable(place, error) from error
    except BaseException:
        connection.close()
        raise
