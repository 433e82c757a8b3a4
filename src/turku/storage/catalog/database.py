"""The catalog's file: one SQLite database per source, beside the machines' directories.

``<volume>/.catalogs/<uuid>/<source>.sqlite``. Not in the machine's directory: a receiver that was taken over can write
there, and would feed us a database (threats M9).
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from turku.errors import CatalogUnusable
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import tree as fs

DIRECTORY = ".catalogs"
SUFFIX = ".sqlite"
FORMAT = 4
"""Catalogs of the first format held checksums that a machine could have forged: they are made anew.

Those of the second knew no attributes, and of times that 64 bits of nanoseconds do not hold the nearest that they do.
Those of the third did not know which files have holes. They go on as they are, and what they do not know is NULL.
"""
_ADDED = {2: ("attributes BLOB", "has_holes INTEGER"), 3: ("has_holes INTEGER",)}
"""The columns that ``versions`` lacks in each format that goes on."""
_APPLICATION = 0x7475726B
_BUSY_SECONDS = 5.0
_LOG = logging.getLogger(__name__)

# A rollback journal, not WAL: a catalog at rest is one file, readable on a volume that is mounted read-only, and WAL
# needs shared memory, which volumes on a network do not have. Writers gather what they write in temporary tables first,
# so that readers wait for milliseconds. EXTRA: a commit is durable before the snapshot's own, the journal's name too.
_SETTINGS = """
PRAGMA journal_mode = DELETE;
PRAGMA synchronous = EXTRA;
PRAGMA temp_store = FILE;
PRAGMA cache_size = -16384;
PRAGMA temp.cache_size = -8192;
PRAGMA trusted_schema = OFF;
PRAGMA cell_size_check = ON;
"""
# `first` and `last` are positions; `last` is NULL while the newest position has the version, so that an unchanged
# backup changes no row. Positions leave gaps: a snapshot that comes back from the trash gets its place between two.
_SCHEMA = """
CREATE TABLE snapshots (
    name BLOB PRIMARY KEY,
    position INTEGER NOT NULL,
    moment INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX snapshots_position ON snapshots (position);
CREATE TABLE directories (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE
);
CREATE TABLE versions (
    id INTEGER PRIMARY KEY,
    directory INTEGER NOT NULL,
    name BLOB NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER,
    kind INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mode INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    checksum BLOB,
    link_target BLOB,
    checked INTEGER NOT NULL DEFAULT 0,
    attributes BLOB,
    has_holes INTEGER
);
CREATE UNIQUE INDEX versions_path ON versions (directory, name, first);
CREATE INDEX versions_first ON versions (first);
CREATE INDEX versions_last ON versions (last) WHERE last IS NOT NULL;
CREATE INDEX versions_checked ON versions (checked) WHERE kind = 0;
"""


def file_of(place: SourceDirectory) -> Path:
    """Where the source's catalog lies; nothing is looked at."""
    machine = place.machine_dir
    return machine.parent / DIRECTORY / machine.name / f"{place.source}{SUFFIX}"


def exists(place: SourceDirectory) -> bool:
    """Return True when the source has a catalog."""
    return fs.is_file(file_of(place))


def connect(place: SourceDirectory) -> sqlite3.Connection:
    """The source's catalog, open; an empty one where there was none, or none that can be read: that is moved aside.

    Raises CatalogUnusable where none can be had: no room, no permission.
    """
    path = file_of(place)
    try:
        return _open(place, path)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise unusable(place, error) from error
        move_aside(place, str(error))
    except OSError as error:
        raise unusable(place, error) from error
    try:
        return _open(place, path)
    except (sqlite3.Error, OSError) as error:
        raise unusable(place, error) from error


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the error says that the file is no catalog, or a broken one: rows that contradict each other, too."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CONSTRAINT,
    )


def move_aside(place: SourceDirectory, reason: str) -> None:
    """Give the catalog another name, for whoever wants to look at it; the newest such one is kept."""
    path = file_of(place)
    aside = path.with_name(f"{path.name}.broken")
    _LOG.warning("%s: the catalog cannot be used (%s); it is made anew, the old one is %s", place.source, reason, aside)
    if fs.exists(path):
        fs.rename(path, aside)
    # It belongs to the file that went.
    fs.unlink(_journal(path))


@contextmanager
def rebuilding(place: SourceDirectory) -> Iterator[sqlite3.Connection]:
    """An empty catalog beside the source's own, whose place it takes with the end of the block.

    Where the block raises, all is as it was: a full disk costs no catalog that is good. Raises CatalogUnusable.
    """
    path, beside = file_of(place), _beside(place)
    try:
        remove_unfinished(place)
        with closing(_open(place, beside)) as connection:
            yield connection
        # What a killed writer left is undone in the file that it belongs to, and in no other.
        with suppress(sqlite3.Error, OSError), closing(_open(place, path)):
            pass
        fs.unlink(_journal(path))
        fs.rename(beside, path)
    except (sqlite3.Error, OSError) as error:
        raise unusable(place, error) from error
    finally:
        with suppress(OSError):
            remove_unfinished(place)


def remove_unfinished(place: SourceDirectory) -> None:
    """Remove what was to become a catalog when it was killed; with the source's lock held. Raises OSError."""
    beside = _beside(place)
    for each in (beside, _journal(beside)):
        fs.unlink(each)


def _beside(place: SourceDirectory) -> Path:
    path = file_of(place)
    return path.with_name(f"{path.name}.new")


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}-journal")


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the block is written, durably, or nothing of it."""
    with _transaction(connection, "BEGIN IMMEDIATE"):
        yield


@contextmanager
def staging_transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """The block writes into temporary tables; nobody is kept from the catalog by it."""
    with _transaction(connection, "BEGIN"):
        yield


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.execute("COMMIT")


def _open(place: SourceDirectory, path: Path) -> sqlite3.Connection:
    if not fs.exists(path):
        make_directory(place)
    refuse_planted(place, path)
    # Who reads ahead does so in another thread than the one that finishes; never both at once.
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.executescript(_SETTINGS)
        if _pragma(connection, "user_version") == 0:
            _create(connection)
            _give_to_machine_owner(place, path, 0o600)
        elif _pragma(connection, "user_version") in _ADDED:
            _add_columns(connection)
            if _pragma(connection, "user_version") in _ADDED and _pragma(connection, "application_id") == _APPLICATION:
                return connection
        if (_pragma(connection, "application_id"), _pragma(connection, "user_version")) != (_APPLICATION, FORMAT):
            raise _NotOurs("it is of another program, or of a newer Turku")
    except BaseException:
        connection.close()
        raise
    return connection


class _NotOurs(sqlite3.DatabaseError):
    sqlite_errorcode = sqlite3.SQLITE_NOTADB


def _create(connection: sqlite3.Connection) -> None:
    with writing(connection):
        if _pragma(connection, "user_version") != 0:
            # Another process was faster.
            return
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise _NotOurs("it is of another program")
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")


def _add_columns(connection: sqlite3.Connection) -> None:
    """Let the catalog have the columns of this format. On a volume that is mounted read-only it seems to have them."""
    try:
        with writing(connection):
            # None where another process was faster.
            columns = _ADDED.get(_pragma(connection, "user_version"))
            if columns is not None and _pragma(connection, "application_id") == _APPLICATION:
                for column in columns:
                    connection.execute(f"ALTER TABLE versions ADD COLUMN {column}")
                connection.execute(f"PRAGMA user_version = {FORMAT}")
    except sqlite3.OperationalError as error:
        # Not where another file has its name by now (SQLITE_READONLY_DBMOVED).
        columns = _ADDED.get(_pragma(connection, "user_version"))
        if error.sqlite_errorcode != sqlite3.SQLITE_READONLY or columns is None:
            raise
        unknown = ", ".join(f"NULL AS {column.split()[0]}" for column in columns)
        # A name of a temporary view goes before a table's.
        connection.execute(f"CREATE TEMP VIEW versions AS SELECT *, {unknown} FROM main.versions")  # noqa: S608  (ours)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def make_directory(place: SourceDirectory) -> None:
    """Let the directory of the machine's catalogs be there. Raises OSError, DurableWriteFailed."""
    directory = file_of(place).parent
    if not fs.is_directory(place.machine_dir):
        # Where a volume was unmounted meanwhile, nothing is made in its mount point.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(place.machine_dir))
    refuse_planted(place, file_of(place))
    for each in (directory.parent, directory):
        if not fs.exists(each):
            fs.make_directory(each)
            _give_to_machine_owner(place, each, 0o700)


def _give_to_machine_owner(place: SourceDirectory, path: Path, mode: int) -> None:
    """Let what root made belong to whom the machine's directory belongs to: the storage may run as another user."""
    with fs.opened(path.parent) as parent:
        owner = fs.status(place.machine_dir)
        if os.geteuid() == 0 and owner is not None:
            os.chown(path.name, owner.st_uid, owner.st_gid, dir_fd=parent, follow_symlinks=False)
    fs.change_mode(path, mode)


def refuse_planted(place: SourceDirectory, path: Path) -> None:
    """Raise OSError where somebody else could have put what is kept at the path, or a directory on the way, there (N4).

    SQLite opens its files by path. So nobody else may be able to change what the path leads to.
    """
    volume, catalogs, machine = place.machine_dir.parent, path.parent.parent, path.parent
    owner = fs.status(place.machine_dir)
    trusted = {0, os.geteuid(), *([] if owner is None else [owner.st_uid])}
    for each in (volume, catalogs, machine, path, _journal(path)):
        status = fs.status(each)
        if status is None:
            continue
        is_open = bool(status.st_mode & stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
        if each is not volume:
            is_open = bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
        is_file = each not in (volume, catalogs, machine)
        is_right = (stat.S_ISREG if is_file else stat.S_ISDIR)(status.st_mode) and not (is_file and status.st_nlink > 1)
        if is_open or not is_right or (each is not volume and status.st_uid not in trusted):
            raise PermissionError(
                errno.EPERM, "others may write to it, or it was put there by another user or is a link", str(each)
            )


def unusable(place: SourceDirectory, error: Exception) -> CatalogUnusable:
    """What to raise where the catalog cannot be used."""
    return CatalogUnusable(
        f"the catalog {file_of(place)} cannot be used: {error}",
        hint="is there room on the volume, and does it belong to the user that this runs as?",
    )
