"""Copies of a PostgreSQL database, by COPY over the coordinator's own connection.

``pg_dump`` refuses a server that is newer than itself, and many coordinators have no PostgreSQL programs at all. COPY
needs neither, no password leaves this process, and the tables themselves come from the migrations that the manifest
names.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management.color import no_style
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor
from psycopg import sql

from turku.api.project.recovery.manifest import OpenedBackup
from turku.core import durable
from turku.errors import UsageError

DIRECTORY = "database"
_CHUNK_BYTES = 1 << 20
# Generated columns can neither be copied nor written.
_COLUMNS = (
    "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(quote_ident(%s)) AND attnum > 0 "
    "AND NOT attisdropped AND attgenerated = '' ORDER BY attnum"
)


def save(directory: Path) -> dict[str, list[str]]:
    """Write each table into a file of the directory, all of one state. Return the columns of each table."""
    durable.make_private_directory(directory)
    found = {}
    with _one_state(), connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(_COLUMNS, (table,))
            found[table] = columns = [name for (name,) in cursor.fetchall()]
            with durable.new_file(directory / table) as stream, _copy(_statement(table, columns, "TO STDOUT")) as rows:
                for chunk in rows:
                    stream.write(chunk)
    return found


def load(backup: OpenedBackup) -> None:
    """Replace the database by that of the backup, with the tables of that time, in one transaction."""
    manifest = backup.manifest
    with transaction.atomic():
        _drop_everything()
        executor = MigrationExecutor(connection)
        executor.migrate(_latest(executor, manifest.migrations))
        with connection.cursor() as cursor:
            # What migrations put there themselves is in the backup as well.
            for table in connection.introspection.table_names(cursor):
                cursor.execute(f"DELETE FROM {_quoted(table)}")  # noqa: S608  (the name is one of our own tables)
        for table, columns in manifest.tables.items():
            with (
                backup.stream(f"{DIRECTORY}/{table}") as stream,
                _copy(_statement(table, columns, "FROM STDIN")) as rows,
            ):
                while chunk := stream.read(_CHUNK_BYTES):
                    rows.write(chunk)


def reset_sequences() -> None:
    """Let new rows get numbers above those of the loaded ones. The tables must be those of the present models."""
    from django.apps import apps

    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(
            no_style(), list(apps.get_models(include_auto_created=True))
        ):
            cursor.execute(statement)


def refuse_if_in_use() -> None:
    """Raise UsageError if another program is connected to the database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
        [count] = cursor.fetchone()
    if count:
        raise UsageError(
            f"{count} connections of other programs use the database",
            hint="stop all coordinators of this database: systemctl stop turku-api",
        )


@contextmanager
def _one_state() -> Iterator[None]:
    """Let all statements of the block see the database as it is at the beginning."""
    connection.ensure_connection()
    connection.connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        yield
    finally:
        connection.connection.execute("ROLLBACK")


def _copy(statement: sql.Composed) -> Any:
    return connection.connection.cursor().copy(statement)


def _statement(table: str, columns: list[str], direction: str) -> sql.Composed:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    return sql.SQL("COPY {} ({}) {}").format(sql.Identifier(table), names, sql.SQL(direction))


def _quoted(table: str) -> str:
    return connection.ops.quote_name(table)


def _latest(executor: MigrationExecutor, migrations: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Return the migrations that no other one of the same app stands upon."""
    recorded = {(app, name) for app, names in migrations.items() for name in names}
    nodes = executor.loader.graph.node_map
    return sorted(
        each
        for each in recorded
        if each in nodes
        and not any(child.key in recorded and child.key[0] == each[0] for child in nodes[each].children)
    )


def _drop_everything() -> None:
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"DROP TABLE {_quoted(table)} CASCADE")
        cursor.execute("DROP FUNCTION IF EXISTS audit_entry_refuse()")
