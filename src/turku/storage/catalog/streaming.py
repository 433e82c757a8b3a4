"""A first backup's rows, read while the transfer still goes on, so that nobody waits for them at its end.

rsync says a line for each entry that it makes, and of a source that has no history that is every entry there will be. A
thread of its own follows these lines, looks at the files and computes their checksums while they are in memory still. A
file is looked at when the next one's line has come: rsync gives it its attributes after its own line. Directories wait
for the end, as their times change with every entry.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from turku.core.paths import split
from turku.errors import TurkuError
from turku.storage.catalog import database
from turku.storage.catalog.scan import SnapshotReader
from turku.storage.catalog.staging import ROWS_AT_ONCE, ReportedName, Staging

if TYPE_CHECKING:
    from turku.storage.disk.source_directory import SourceDirectory
    from turku.storage.rsync.change_log import ChangeLog

_LOG = logging.getLogger(__name__)


class StreamingIndexer:
    """What is known so far of the tree that a first backup makes; used by the thread that runs the backup."""

    def __init__(self, connection: sqlite3.Connection, place: SourceDirectory) -> None:
        self.connection = connection
        self._place = place
        self._is_over = threading.Event()
        self._is_given_up = threading.Event()
        self._thread: threading.Thread | None = None
        self._told: ChangeLog | None = None
        self._gathering: Staging | None = None

    def begin(self, tree: Path, told: ChangeLog, *, has_attributes: bool) -> None:
        """Follow what is told about ``tree``, in which nothing is yet. ``has_attributes``: rsync keeps owners there."""
        self._told = told
        self._thread = threading.Thread(target=self._follow, args=(tree, told, has_attributes), daemon=True)
        self._thread.start()

    def finished(self) -> Staging | None:
        """Return all of the tree, once the transfer is over; None where it must be read after all."""
        if self._thread is None or self._told is None:
            return None
        self._told.flush()
        self._is_over.set()
        self._thread.join()
        return self._gathering

    def close(self) -> None:
        """Let go of everything."""
        self._is_given_up.set()
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()
        self.connection.close()

    def _follow(self, path: Path, told: ChangeLog, has_attributes: bool) -> None:  # noqa: FBT001
        """Read along; what is gathered counts only where that came to its end."""
        gathering = Staging(self.connection, path, base=None, before=None, after=None)
        try:
            with SnapshotReader(path, has_attributes=has_attributes) as tree:
                gathering.prepare()
                self._stage(tree, told, gathering)
        except (OSError, sqlite3.Error) as error:
            _LOG.info("%s: the tree is read for the catalog after the transfer: %s", self._place.source, error)
        except Exception:
            _LOG.exception("%s: the tree is read for the catalog after the transfer", self._place.source)
        else:
            self._gathering = gathering

    def _stage(self, tree: SnapshotReader, told: ChangeLog, gathering: Staging) -> None:
        files: list[ReportedName] = []
        others: list[ReportedName] = []
        for change in told.follow(self._is_over):
            if self._is_given_up.is_set():
                return
            if change.kind == "deleted" or change.path == b".":
                continue
            (files if change.is_file else others).append(split(change.path))
            if len(files) > ROWS_AT_ONCE:
                *ready, newest = files
                gathering.add(tree, ready)
                files = [newest]
            if len(others) > ROWS_AT_ONCE:
                gathering.defer(others)
                others = []
        gathering.add(tree, files)
        gathering.defer(others)
        gathering.add_deferred(tree)


@contextmanager
def stream_index(place: SourceDirectory) -> Iterator[StreamingIndexer | None]:
    """Yield what reads ahead for the source's catalog; None where that cannot be had. With the source's lock held."""
    try:
        connection = database.connect(place)
    except TurkuError as error:
        _LOG.info("%s: %s", place.source, error.message)
        yield None
        return
    ahead = StreamingIndexer(connection, place)
    try:
        yield ahead
    finally:
        ahead.close()
