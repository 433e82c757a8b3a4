"""Bytes per row of the coordinator's tables and of their indexes in PostgreSQL, with rows written in the order in which
they come.

`.venv/bin/python -m bench.row_sizes [--machines N] [--output FILE]` measures 20,000 machines by default, with 60,000
sources and 120,000 runs, on a PostgreSQL server of the benchmark's own. It takes about a minute. docs/scale.md carries
the sizes on.
"""

import argparse
import json
import os
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench import filled_database
from bench.simulated_fleet import SUMMARY
from tests.support.postgresql import PostgresqlServer

MACHINES = 20_000
RUNS_PER_SOURCE = 2
TABLES = ("fleet_machine", "backups_source", "backups_backuprun", "audit_auditentry")


def write_runs(machines: int) -> None:
    """Runs in the place of those that are there, each with the summary that rsync's statistics make."""
    from django.db import connection

    from turku.api.backups.models import BackupRun
    from turku.core.clock import SYSTEM_CLOCK

    now = SYSTEM_CLOCK.now()
    sources = machines * filled_database.SOURCES_PER_MACHINE
    rows = (
        {
            "source_id": filled_database._source_id(source := number * 104_729 % sources),
            "storage_id": source // filled_database.SOURCES_PER_MACHINE % filled_database.STORAGES + 1,
            "date": (ended := now - timedelta(seconds=(RUNS_PER_SOURCE * sources - number) * 0.1)),
            "success": number % 50 != 3,
            "snapshot": "" if number % 50 == 3 else f"etc_{ended:%Y%m%d-%H%M%S}_{number % 65536:04x}",
            "date_begin": ended - timedelta(seconds=20 + number % 100),
            "date_end": ended,
        }
        for number in range(RUNS_PER_SOURCE * sources)
    )
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE backups_backuprun CASCADE")
    filled_database.Filler(now).write(BackupRun, rows, summary=SUMMARY)


def measured() -> dict[str, Any]:
    """Table to rows, bytes per row of table and indexes, and the bytes per row of each index."""
    from django.db import connection

    found: dict[str, Any] = {}
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
        for table in TABLES:
            cursor.execute(f'SELECT count(*) FROM "{table}"')
            rows = cursor.fetchone()[0]
            cursor.execute("SELECT pg_table_size(%s), pg_indexes_size(%s)", [table, table])
            table_bytes, index_bytes = cursor.fetchone()
            cursor.execute(
                "SELECT indexrelname, pg_relation_size(indexrelid) FROM pg_stat_user_indexes WHERE relname = %s",
                [table],
            )
            indexes = {name: size / rows for name, size in cursor.fetchall()}
            found[table] = {
                "rows": rows,
                "table_bytes_per_row": table_bytes / rows,
                "index_bytes_per_row": index_bytes / rows,
                "indexes": dict(sorted(indexes.items(), key=lambda item: -item[1])),
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--machines", type=int, default=MACHINES, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, help="a file for the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="turku-rows-") as state, PostgresqlServer() as server:
        os.environ["TURKU_STATE_DIR"] = state
        os.environ["TURKU_DATABASE_URL"] = server.create_database("rows")
        os.environ["DJANGO_SETTINGS_MODULE"] = "turku.api.project.settings"
        import django

        from turku.api.cli import create_files

        create_files()
        django.setup()
        from django.core.management import call_command
        from django.db import connections

        from turku.api.fleet.identity import hash_keys
        from turku.core.clock import SYSTEM_CLOCK

        call_command("migrate", verbosity=0)
        hash_keys.register_newest_key(now=SYSTEM_CLOCK.now())
        filled_database.fill(machines=arguments.machines, now=SYSTEM_CLOCK.now())
        write_runs(arguments.machines)
        found = measured()
        connections.close_all()
    for table, sizes in found.items():
        table_bytes, index_bytes = sizes["table_bytes_per_row"], sizes["index_bytes_per_row"]
        print(f"{table:22} {sizes['rows']:9,} rows  {table_bytes:6.0f} + {index_bytes:5.0f} bytes each")
        for name, size in sizes["indexes"].items():
            print(f"    {name:60} {size:6.0f}")
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
