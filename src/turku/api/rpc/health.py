"""The call ``health``."""

from django.db import connection
from django.db.models import Model

from turku.api.backups.models import BackupRun, Source
from turku.api.fleet.models import Auth, FilterSet, Machine, Storage
from turku.api.rpc.endpoint import endpoint
from turku.core.clock import SYSTEM_CLOCK
from turku.protocol.messages import Empty, HealthAnswer

_COUNTED: dict[str, type[Model]] = {
    "auth": Auth,
    "storage": Storage,
    "machine": Machine,
    "source": Source,
    "filter_set": FilterSet,
    "backup_log": BackupRun,
}
# Anybody may call the health check, so the call must not read years of backup runs.
_EXACT_UP_TO = 10_000


def _bounded_count(model: type[Model]) -> int:
    """Return the number of rows: exact up to _EXACT_UP_TO, otherwise an estimate that is at least as large."""
    found = model._default_manager.order_by().values_list("pk")[: _EXACT_UP_TO + 1].count()
    return found if found <= _EXACT_UP_TO else max(_estimate(model), found)


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


@endpoint(Empty)
def health(_request: Empty) -> HealthAnswer:
    """Return that the coordinator and its database work, with the number of objects of each kind."""
    counts = {name: _bounded_count(model) for name, model in _COUNTED.items()}
    return HealthAnswer(healthy=True, date=SYSTEM_CLOCK.now().isoformat(), counts=counts)
