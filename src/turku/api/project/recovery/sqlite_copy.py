"""Copies of an SQLite database, made while the coordinator runs."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from turku.core import durable
from turku.errors import CommandFailed, UsageError

FILE = "db.sqlite3"
_BESIDE = ("-wal", "-shm", "-journal")
_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 60.0


def save(database: Path, directory: Path) -> None:
    """Write a consistent copy into the directory. Writers go on meanwhile. Raises CommandFailed."""
    copy = directory / FILE
    # The file is made here, because SQLite would make it with another mode.
    with durable.new_file(copy):
        pass
    try:
        with (
            closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=_TIMEOUT_SECONDS)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            # One step for all pages reads one state of the database.
            source.backup(target, pages=-1)
        with closing(sqlite3.connect(f"{copy.as_uri()}?immutable=1", uri=True)) as made:
            [(said,)] = made.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.Error as error:
        raise CommandFailed(f"the database {database} cannot be copied: {error}") from error
    if said != "ok":
        raise CommandFailed(
            f"the database {database} is damaged: {said}", hint="recover an older backup: turku-api recover"
        )


def load(stream: BinaryIO, database: Path, *, kept_as: str) -> list[Path]:
    """Make the content of the stream the database. Return the paths of what was there before.

    That is kept, with ``kept_as`` at the end of its name. Raises DurableWriteFailed.
    """
    new = database.with_name(f".{database.name}.recovering")
    new.unlink(missing_ok=True)
    with durable.new_file(new) as target:
        while chunk := stream.read(_CHUNK_BYTES):
            target.write(chunk)
    kept = []
    # The log of the former database must not lie beside the new one. It goes last, and so does its way back.
    for end in ("", *_BESIDE):
        former = database.with_name(database.name + end)
        if former.exists():
            kept.append(database.with_name(f"{database.name}.{kept_as}{end}"))
            durable.rename(former, kept[-1])
    durable.rename(new, database)
    return kept[:1]


def refuse_if_in_use(database: Path) -> None:
    """Raise UsageError if another program has the database open."""
    if not database.exists():
        return
    try:
        with closing(sqlite3.connect(database, timeout=1)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        is_locked = False
    except sqlite3.OperationalError as error:
        is_locked = error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        if not is_locked:
            return
    except sqlite3.Error:
        # It is damaged. That is what a backup is for.
        return
    # The last connection that is closed removes this file.
    if is_locked or database.with_name(f"{database.name}-shm").exists():
        raise UsageError(f"a program has {database} open", hint="stop the coordinator: systemctl stop turku-api")
