"""The backup of the coordinator: a directory that is there as a whole or not at all."""

import os
import re
import secrets
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from turku import __version__
from turku.api.configuration.environment import Environment
from turku.api.fleet.models import Machine, Storage
from turku.api.project.recovery import manifest, settings_files, sqlite_copy
from turku.api.project.recovery.manifest import BackupManifest
from turku.core import durable, lock

_STAMP = "%Y-%m-%dT%H%M%SZ"
_NAME = re.compile(r"\d{4}-\d\d-\d\dT\d{6}Z(-\d+)?")
_UNFINISHED = ".unfinished-"


def make(directory: Path, environment: Environment, variables: Mapping[str, str], *, now: datetime) -> Path:
    """Make a backup in the directory, and return its path. Raises DurableWriteFailed, CommandFailed."""
    durable.make_private_directory(directory)
    with lock.exclusive(directory, ".backup"):
        for left in directory.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left)
        unfinished = directory / f"{_UNFINISHED}{secrets.token_hex(4)}"
        durable.make_private_directory(unfinished)
        try:
            _fill(unfinished, environment, variables, now)
            path = _unused(directory, f"{now:{_STAMP}}")
            durable.rename(unfinished, path)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    return path


def newest(directory: Path) -> datetime | None:
    """Return the time of the newest backup in the directory, or None if this user finds none there."""
    try:
        found = [path.name for path in directory.iterdir() if _NAME.fullmatch(path.name)]
    except OSError:
        return None
    return datetime.strptime(max(found)[: len("2026-01-31T120000Z")], _STAMP).replace(tzinfo=UTC) if found else None


def remove_old(directory: Path, *, keep: int) -> list[Path]:
    """Remove all but the newest ``keep`` backups in the directory, and return their paths.

    A directory without a manifest is not touched.
    """
    with lock.exclusive(directory, ".backup"):
        found = sorted(
            path for path in directory.iterdir() if _NAME.fullmatch(path.name) and (path / manifest.FILE).is_file()
        )
        old = found[: max(0, len(found) - keep)]
        for path in old:
            # Without its manifest it is no backup any more.
            (path / manifest.FILE).unlink()
            shutil.rmtree(path)
    return old


def _fill(directory: Path, environment: Environment, variables: Mapping[str, str], now: datetime) -> None:
    tables: dict[str, list[str]] = {}
    settings_files.save(directory, environment, variables)
    if environment.database.engine == "sqlite3":
        sqlite_copy.save(Path(environment.database.name), directory)
    else:
        # It needs psycopg, which a coordinator with SQLite need not have.
        from turku.api.project.recovery import postgresql_copy

        tables = postgresql_copy.save(directory / postgresql_copy.DIRECTORY)
    for path in directory.rglob("*"):
        if path.is_dir():
            durable.fsync_directory(path)
    migrations: dict[str, list[str]] = {}
    for app, name in sorted(MigrationRecorder(connection).applied_migrations()):
        migrations.setdefault(app, []).append(name)
    manifest.write(
        directory,
        BackupManifest(
            format=manifest.FORMAT,
            made=now.isoformat(timespec="seconds"),
            program=__version__,
            engine=environment.database.engine,
            migrations=migrations,
            rows={"machines": Machine.objects.count(), "storages": Storage.objects.count()},
            files=manifest.listed(directory),
            tables=tables,
        ),
    )


def _unused(directory: Path, name: str) -> Path:
    """Return a path of that name, with a number at its end if there is one of the same second."""
    number, path = 1, directory / name
    while os.path.lexists(path):
        number += 1
        path = directory / f"{name}-{number}"
    return path
