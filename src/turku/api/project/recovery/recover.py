"""Recovery of the coordinator from a backup: keys, state and database take their places again."""

from contextlib import suppress
from datetime import datetime
from pathlib import Path

from django.core.management import call_command
from django.db import DatabaseError, connection, connections
from django.db.migrations.loader import MigrationLoader

from turku.api.audit import log
from turku.api.configuration.environment import Environment
from turku.api.fleet.identity import keyring
from turku.api.fleet.models import Machine, Storage
from turku.api.project.recovery import backup, settings_files, sqlite_copy
from turku.api.project.recovery.manifest import BackupManifest, OpenedBackup
from turku.errors import UsageError

_FORMER = "before-recover"


def recover(opened: OpenedBackup, environment: Environment, *, replaces: bool, now: datetime) -> list[Path]:
    """Put the backup in place of what is here. Return the paths under which that is kept.

    Raises UsageError for a backup of another kind or of a newer program, and, without ``replaces``, where the database
    has machines or storages.
    """
    found = opened.manifest
    _refuse_unusable(found, environment)
    living = _living()
    if living and not replaces:
        raise UsageError(
            f"the database {environment.database.name} is in use: it has {living}",
            hint="stop the coordinator, and say --replace: what is there now is kept aside",
        )
    kept_as = f"{_FORMER}-{now:%Y%m%d-%H%M%S}"
    kept: list[Path] = []
    if environment.database.engine == "sqlite3":
        database = Path(environment.database.name)
        connections.close_all()
        sqlite_copy.refuse_if_in_use(database)
        kept += settings_files.load(opened, environment, kept_as=kept_as)
        with opened.stream(sqlite_copy.FILE) as stream:
            kept += sqlite_copy.load(stream, database, kept_as=kept_as)
    else:
        from turku.api.project.recovery import postgresql_copy

        postgresql_copy.refuse_if_in_use()
        if living:
            kept.append(backup.make(environment.state_dir / _FORMER, environment, {}, now=now))
        kept += settings_files.load(opened, environment, kept_as=kept_as)
        postgresql_copy.load(opened)
    keyring.forget()
    call_command("migrate", verbosity=0, interactive=False)
    if environment.database.engine != "sqlite3":
        postgresql_copy.reset_sequences()
    entry = log.NewEntry("coordinator.recovered", None, new={"backup": found.made, "program": found.program})
    log.record(log.COMMAND_LINE, [entry], now=now)
    return kept


def _refuse_unusable(found: BackupManifest, environment: Environment) -> None:
    if found.engine != environment.database.engine:
        raise UsageError(
            f"the backup is of a {found.engine} database, and the settings name a {environment.database.engine} one",
            hint="recover it into the same kind, and move it then (docs/howto/postgresql.md)",
        )
    known = MigrationLoader(None, ignore_no_migrations=True).disk_migrations
    newer = [f"{app}.{name}" for app, names in found.migrations.items() for name in names if (app, name) not in known]
    if newer:
        raise UsageError(
            f"the backup is of a newer version, {found.program}: {', '.join(newer)}",
            hint="install that version here first",
        )


def _living() -> str:
    """Return the machines and storages that the database has, in words, or empty if it has none."""
    with suppress(DatabaseError):
        machines, storages = Machine.objects.count(), Storage.objects.count()
        if machines or storages:
            return f"{machines} machines and {storages} storages"
    # There are no tables yet. A transaction that failed must not stay open.
    connection.close()
    return ""
