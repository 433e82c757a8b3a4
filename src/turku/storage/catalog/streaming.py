"""Indexing of a first backup while its transfer goes on, so that nobody waits for the catalog at its end.

rsync prints a line for each entry that it creates, and in a source without history that is every entry. A thread
follows these lines, reads the entries and computes checksums while the files are still in the page cache. A file is
read when the next file's line has come, because rsync sets its attributes after its line. Directories wait for the end,
as their times change with every entry.
"""

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from turku.core.filesystem.paths import split
from turku.errors import TurkuError
from turku.storage.catalog import database
from turku.storage.catalog.scan import SnapshotReader
from turku.storage.catalog.staging import ROWS_AT_ONCE, ReportedName, Staging

if TYPE_CHECKING:
    from turku.storage.disk.source_directory import SourceDirectory
    from turku.storage.rsync.change_log import ChangeLog

THREAD_NAME = "catalog indexer"
_LOG = logging.getLogger(__name__)


class StreamingIndexer:
    """The index of the tree of a first backup, built during its transfer and used by the backup's thread.

    Its connection belongs to one thread at a time, because SQLite ends the process when one thread closes what another
    one uses. It is the indexer's own until ``hand_over``.
    """

    def __init__(self, connection: sqlite3.Connection, place: "SourceDirectory") -> None:
        self._connection = connection
        self._place = place
        self._is_over = threading.Event()
        self._is_given_up = threading.Event()
        self._thread: threading.Thread | None = None
        self._changes: ChangeLog | None = None
        self._staging: Staging | None = None

    def begin(self, tree: Path, changes: "ChangeLog", *, has_attributes: bool) -> None:
        """Follow ``changes`` as they are reported about the empty ``tree``.

        ``has_attributes`` says that rsync keeps owners in extended attributes there.
        """
        self._changes = changes
        self._thread = threading.Thread(
            target=self._follow, args=(tree, changes, has_attributes), name=THREAD_NAME, daemon=True
        )
        self._thread.start()

    def hand_over(self) -> tuple[sqlite3.Connection, Staging | None]:
        """Return the connection after the end of the transfer, with the staged tree. The indexer has stopped by then.

        The tree is None if it must be read after all. Raises OSError if the changes cannot be written out.
        """
        if self._changes is not None and self._changes.lists_every_change:
            self._changes.flush()
        else:
            self._is_given_up.set()
        self._stop()
        return self._connection, self._staging

    def close(self) -> None:
        """Stop following, and close the connection."""
        self._is_given_up.set()
        self._stop()
        self._connection.close()

    def _stop(self) -> None:
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self, path: Path, changes: "ChangeLog", has_attributes: bool) -> None:  # noqa: FBT001
        """Follow the changes. The staged entries count only if this comes to its end."""
        staging = Staging(self._connection, path, base=None, before=None, after=None)
        try:
            with SnapshotReader(path, has_attributes=has_attributes) as tree:
                staging.prepare()
                self._stage(tree, changes, staging)
        except (OSError, sqlite3.Error) as error:
            _LOG.info("%s: the tree is read into the catalog after the transfer: %s", self._place.source, error)
        except Exception:
            _LOG.exception("%s: the tree is read into the catalog after the transfer", self._place.source)
        else:
            if not self._is_given_up.is_set():
                self._staging = staging

    def _stage(self, tree: SnapshotReader, changes: "ChangeLog", staging: Staging) -> None:
        files: list[ReportedName] = []
        others: list[ReportedName] = []
        for change in changes.follow(self._is_over):
            if self._is_given_up.is_set():
                return
            if change.kind == "deleted" or change.path == b".":
                continue
            (files if change.is_file else others).append(split(change.path))
            if len(files) > ROWS_AT_ONCE:
                *ready, newest = files
                staging.add(tree, ready)
                files = [newest]
            if len(others) > ROWS_AT_ONCE:
                staging.defer(others)
                others = []
        staging.add(tree, files)
        staging.defer(others)
        staging.add_deferred(tree)


@contextmanager
def stream_index(place: "SourceDirectory") -> Iterator[StreamingIndexer | None]:
    """Yield an indexer for the source's catalog, or None if the catalog cannot be opened.

    The source's lock must be held.
    """
    try:
        connection = database.connect(place)
    except TurkuError as error:
        _LOG.info("%s: %s", place.source, error.message)
        yield None
        return
    indexer = StreamingIndexer(connection, place)
    try:
        yield indexer
    finally:
        indexer.close()
