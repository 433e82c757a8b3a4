"""Opening a catalog to look into it: whatever happened to it meanwhile is made good first."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import tzinfo

from turku.storage.catalog import database, sync
from turku.storage.catalog.reader import Catalog
from turku.storage.catalog.scope import WHOLE, Scope
from turku.storage.disk.source_directory import SourceDirectory


def open_catalog(place: SourceDirectory, *, zone: tzinfo, scope: Scope = WHOLE) -> Catalog:
    """The source's catalog, in step with what is on the disk; a context manager. ``zone`` is the snapshots' names'.

    It knows of nothing that is not in ``scope``. The first one who looks at a history that has no catalog yet waits
    until its trees are read. Raises CatalogUnusable.
    """
    return _open(place, zone, lambda: True, scope)


def update(place: SourceDirectory, *, zone: tzinfo, go_on: Callable[[], bool]) -> None:
    """Read the snapshots that are in no catalog yet, for as long as ``go_on`` says so. Raises CatalogUnusable."""
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
