"""Row counts at a fixed cost: exact for small tables, an estimate of the database for large ones.

Anybody may call the coordinator's health check, so the call must not read years of backup runs.
"""

from __future__ import annotations

from django.db import connection
from django.db.models import Model

EXACT_UP_TO = 10_000


def bounded_count(model: type[Model]) -> int:
    """Return the number of rows: exact up to EXACT_UP_TO, otherwise an estimate that is at least as large."""
    found = model._default_manager.order_by().values_list("pk")[: EXACT_UP_TO + 1].count()
    return found if found <= EXACT_UP_TO else max(_estimate(model), found)


def _estimate(model: type[Model]) -> int:
    table = model._meta.db_table
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # The last VACUUM or ANALYZE counted this. Autovacuum runs when a tenth of the table has changed.
            cursor.execute("SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)", [f'"{table}"'])
        else:
            # Rows are numbered in order and the oldest are deleted first, so the range has few gaps.
            name = connection.ops.quote_name(table)
            cursor.execute(f"SELECT (SELECT max(rowid) FROM {name}) - (SELECT min(rowid) FROM {name}) + 1")  # noqa: S608  (our own table)
        row = cursor.fetchone()
    return int(row[0] or 0) if row else 0
