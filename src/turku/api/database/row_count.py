"""How many rows a table has, at the same cost however many: exactly while they are few, then as the database knows it.

Anybody may ask the coordinator for its health: a question must not read every run of the last years.
"""

from __future__ import annotations

from django.db import connection
from django.db.models import Model

EXACT_UP_TO = 10_000


def bounded_count(model: type[Model]) -> int:
    """The number of rows; above EXACT_UP_TO an estimate, never less than that."""
    found = model._default_manager.order_by().values_list("pk")[: EXACT_UP_TO + 1].count()
    return found if found <= EXACT_UP_TO else max(_estimate(model), found)


def _estimate(model: type[Model]) -> int:
    table = model._meta.db_table
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # What the last VACUUM or ANALYZE counted; autovacuum comes by when a tenth of the table has changed.
            cursor.execute("SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)", [f'"{table}"'])
        else:
            # Rows are numbered as they come, and the oldest go first: what lies between the ends is nearly all there.
            name = connection.ops.quote_name(table)
            cursor.execute(f"SELECT (SELECT max(rowid) FROM {name}) - (SELECT min(rowid) FROM {name}) + 1")  # noqa: S608  (our own table)
        row = cursor.fetchone()
    return int(row[0] or 0) if row else 0
