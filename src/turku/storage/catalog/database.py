"""The catalog's file: one SQLite database per source, beside the machines' directories.

Its path is ``<volume>/.catalogs/<uuid>/<source>.sqlite``. It is not in the machine's directory, because a compromised
receiver can write there and could plant a database (threats M9).
"""

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
"""The format of a catalog's file.

Catalogs of format 1 contain checksums that a machine could have forged, so they are rebuilt. Format 2 had no
attributes, and rounded times that do not fit 64 bits of nanoseconds. Format 3 did not know which files have holes.
Formats 2 and 3 are extended, and what they do not know is NULL.
"""
_ADDED = {2: ("attributes BLOB", "has_holes INTEGER"), 3: ("has_holes INTEGER",)}
"""The columns that ``versions`` lacks in each format that is extended."""
_APPLICATION = 0x7475726B
_BUSY_SECONDS = 5.0
_LOG = logging.getLogger(__name__)

# The journal is a rollback journal, not WAL. A catalog at rest is then one file and readable on a volume that is
# mounted read-only, and WAL needs shared memory, which volumes on a network lack. Writers stage their rows in temporary
# tables first, so readers wait for milliseconds only. EXTRA makes a commit durable before the snapshot's own, including
# the removal of the journal's name.
_SETTINGS = """
PRAGMA journal_mode = DELETE;
PRAGMA synchronous = EXTRA;
PRAGMA temp_store = FILE;
PRAGMA cache_size = -16384;
PRAGMA temp.cache_size = -8192;
PRAGMA trusted_schema = OFF;
PRAGMA cell_size_check = ON;
"""
# `first` and `last` are positions. `last` is NULL while the newest position has the version, so an unchanged backup
# changes no row. Positions leave gaps, so that a snapshot that returns from the trash fits between two others.
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
    """Return the path of the source's catalog. The disk is not read."""
    machine = place.machine_dir
    return machine.parent / DIRECTORY / machine.name / f"{place.source}{SUFFIX}"


def exists(place: SourceDirectory) -> bool:
    """Return True if the source has a catalog."""
    return fs.is_file(file_of(place))


def connect(place: SourceDirectory) -> sqlite3.Connection:
    """Open the source's catalog. Create it if there is none, or none that is readable.

    An unreadable catalog is moved aside. Raises CatalogUnusable if it can be neither opened nor created, for lack of
    space or permission.
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
    """Return True if the error says that the file is not a catalog, or a damaged one, including contradictory rows."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CONSTRAINT,
    )


def move_aside(place: SourceDirectory, reason: str) -> None:
    """Rename the catalog, so that somebody can examine it. The newest such file is kept."""
    path = file_of(place)
    aside = path.with_name(f"{path.name}.broken")
    _LOG.warning(
        "%s: the catalog cannot be used (%s). It is built anew, and the old one is kept as %s",
        place.source,
        reason,
        aside,
    )
    if fs.exists(path):
        fs.rename(path, aside)
    # The journal belongs to the file that was renamed.
    fs.unlink(_journal(path))


@contextmanager
def rebuilding(place: SourceDirectory) -> Iterator[sqlite3.Connection]:
    """Yield an empty catalog beside the source's own, which it replaces at the end of the block.

    If the block raises, the old catalog stays: a full disk costs no good catalog. Raises CatalogUnusable.
    """
    path, beside = file_of(place), _beside(place)
    try:
        remove_unfinished(place)
        with closing(_open(place, beside)) as connection:
            yield connection
        # A killed writer's journal is rolled back in its own file, and in no other.
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
    """Remove a new catalog that was never finished. The source's lock must be held. Raises OSError."""
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
    """Run the block in a durable transaction: all of it is written, or nothing."""
    with _transaction(connection, "BEGIN IMMEDIATE"):
        yield


@contextmanager
def staging_transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run the block in a transaction on temporary tables. It keeps nobody from the catalog."""
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
    # The streaming indexer uses the connection in another thread than the backup, but never at the same time.
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
    """Add the columns that this format has. On a volume that is mounted read-only, a view supplies them."""
    try:
        with writing(connection):
            # None if another process was faster.
            columns = _ADDED.get(_pragma(connection, "user_version"))
            if columns is not None and _pragma(connection, "application_id") == _APPLICATION:
                for column in columns:
                    connection.execute(f"ALTER TABLE versions ADD COLUMN {column}")
                connection.execute(f"PRAGMA user_version = {FORMAT}")
    except sqlite3.OperationalError as error:
        # Not if another file has its name by now (SQLITE_READONLY_DBMOVED).
        columns = _ADDED.get(_pragma(connection, "user_version"))
        if error.sqlite_errorcode != sqlite3.SQLITE_READONLY or columns is None:
            raise
        unknown = ", ".join(f"NULL AS {column.split()[0]}" for column in columns)
        # SQLite looks up a temporary view before a table of the same name.
        connection.execute(f"CREATE TEMP VIEW versions AS SELECT *, {unknown} FROM main.versions")  # noqa: S608  (ours)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def make_directory(place: SourceDirectory) -> None:
    """Create the directory of the machine's catalogs if it is missing. Raises OSError, DurableWriteFailed."""
    directory = file_of(place).parent
    if not fs.is_directory(place.machine_dir):
        # If the volume was unmounted meanwhile, nothing is created in its mount point.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(place.machine_dir))
    refuse_planted(place, file_of(place))
    for each in (directory.parent, directory):
        if not fs.exists(each):
            fs.make_directory(each)
            _give_to_machine_owner(place, each, 0o700)


def _give_to_machine_owner(place: SourceDirectory, path: Path, mode: int) -> None:
    """Give a new file to the owner of the machine's directory, as the storage may run as another user than root."""
    with fs.opened(path.parent) as parent:
        owner = fs.status(place.machine_dir)
        if os.geteuid() == 0 and owner is not None:
            os.chown(path.name, owner.st_uid, owner.st_gid, dir_fd=parent, follow_symlinks=False)
    fs.change_mode(path, mode)


def refuse_planted(place: SourceDirectory, path: Path) -> None:
    """Raise OSError if another user could have planted the file at the path, or a directory above it (N4).

    SQLite opens its files by path. Nobody else may therefore be able to change what the path leads to.
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
    """Return the exception for a catalog that cannot be used."""
    return CatalogUnusable(
        f"the catalog {file_of(place)} cannot be used: {error}",
        hint="is there room on the volume, and does it belong to the user that this runs as?",
    )
