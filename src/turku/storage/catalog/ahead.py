"""A first backup's rows, read while the transfer still goes on, so that nobody waits for them at its end.

rsync says a line for each entry that it makes, and of a source that has no history that is every entry there will be.
A file is looked at when the next one's line has come: rsync gives it its attributes after its own line. Directories
wait for the end, as their times change with every entry.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from turku.errors import TurkuError
from turku.storage.catalog import database
from turku.storage.catalog.gathering import ROWS_AT_ONCE, Gathering, Told, split
from turku.storage.catalog.tree import Tree

if TYPE_CHECKING:
    from turku.storage.changes import Line
    from turku.storage.snapshots.place import SourcePlace

_LOG = logging.getLogger(__name__)


class Ahead:
    """What is known so far of the tree that a first backup makes; told of it by one thread, finished by another."""

    def __init__(self, connection: sqlite3.Connection, place: SourcePlace) -> None:
        self.connection = connection
        self._place = place
        self._stack = ExitStack()
        self._gathering: Gathering | None = None
        self._tree: Tree | None = None
        self._files: list[Told] = []
        self._others: list[Told] = []

    def begin(self, tree: Path, *, has_attributes: bool) -> None:
        """Be ready for lines about ``tree``, in which nothing is yet. ``has_attributes``: rsync keeps owners there."""
        try:
            self._tree = self._stack.enter_context(Tree(tree, has_attributes=has_attributes))
            self._gathering = Gathering(self.connection, tree, base=None, before=None, after=None)
            self._gathering.prepare()
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def note(self, line: Line) -> None:
        """Take note of what rsync says; never raises."""
        gathering, tree = self._gathering, self._tree
        if gathering is None or tree is None or line.is_deleted or line.path == b".":
            return
        waiting = self._files if line.file_type == b"f" else self._others
        waiting.append((*split(line.path), line.checksum))
        if len(waiting) <= ROWS_AT_ONCE:
            return
        try:
            if waiting is self._files:
                *ready, newest = waiting
                gathering.add(tree, ready)
                self._files = [newest]
            else:
                self._remember_others(gathering)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def finished(self) -> Gathering | None:
        """All of the tree, once the transfer is over; None where it must be read after all."""
        gathering, tree = self._gathering, self._tree
        if gathering is None or tree is None:
            return None
        try:
            gathering.add(tree, self._files)
            self._files = []
            self._remember_others(gathering)
            gathering.add_awaited(tree)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)
            return None
        return gathering

    def close(self) -> None:
        """Let go of everything."""
        self._gathering = None
        self._stack.close()
        self.connection.close()

    def _remember_others(self, gathering: Gathering) -> None:
        gathering.remember(self._others)
        self._others = []

    def _give_up(self, error: Exception) -> None:
        _LOG.info("%s: the tree is read for the catalog after the transfer: %s", self._place.source, error)
        self._gathering = None
        self._files, self._others = [], []


@contextmanager
def ahead_of_end(place: SourcePlace) -> Iterator[Ahead | None]:
    """What reads ahead for the source's catalog; None where that cannot be had. With the source's lock held."""
    try:
        connection = database.connect(place)
    except TurkuError as error:
        _LOG.info("%s: %s", place.source, error.message)
        yield None
        return
    ahead = Ahead(connection, place)
    try:
        yield ahead
    finally:
        ahead.close()
