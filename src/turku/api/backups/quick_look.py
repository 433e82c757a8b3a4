"""The first look at a check-in: nearly all of a fleet's have nothing due, and end after this one statement.

Written as SQL: the same through models costs ten times as much, most of it in building the statement anew.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import connection

from turku.api.backups.models import Source
from turku.api.fleet import credentials
from turku.api.fleet.models import Machine

_LOOK = f"""
SELECT id, secret_hash, active, date_checked_in > %s AND date_checked_in < %s, EXISTS (
    SELECT 1 FROM {Source._meta.db_table} AS source
    WHERE source.machine_id = machine.id AND source.date_next_backup <= %s AND source.active AND source.published
)
FROM {Machine._meta.db_table} AS machine
WHERE uuid = %s
"""  # noqa: S608  (the names of our own tables)
_uuid = Machine._meta.get_field("uuid")
_moment = Machine._meta.get_field("date_checked_in")


def machine_with_something_due(uuid: UUID, secret: str, *, now: datetime) -> int | None:
    """The key of the machine, which is noted as seen, or None where none of its sources are due.

    Whether machine and storage are switched on is not looked at. Raises ApiRefused (403).
    """
    moments = [_moment.get_db_prep_value(value, connection) for value in (*credentials.noted_since(now), now)]
    with connection.cursor() as cursor:
        cursor.execute(_LOOK, [*moments, _uuid.get_db_prep_value(uuid, connection)])
        row = cursor.fetchone()
    if row is None:
        credentials.require_proof(None, secret)
        return None
    *columns, is_noted, has_due = row
    machine = Machine.from_db(connection.alias, ("id", "secret_hash", "active"), columns)
    credentials.require_proof(machine, secret)
    if not is_noted:
        credentials.write_check_in(machine, now=now)
    return machine.pk if has_due else None
