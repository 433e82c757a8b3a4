"""The first query of a checkin. Nearly all checkins have nothing due and end after this one statement.

It is SQL because the same query through models takes ten times as long, mostly to build the statement.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import connection
from msgspec import UNSET, UnsetType

from turku.api.backups import next_backup
from turku.api.backups.models import Source
from turku.api.backups.profiles import offers
from turku.api.backups.profiles.offers import Group
from turku.api.fleet.identity import authentication
from turku.api.fleet.models import Machine
from turku.api.restores import offer_cache
from turku.api.restores.models import RestoreRequest

_LATER_THAN_SCHEDULE = [
    f" OR (source.longest_pause_days = {days} AND source.date_next_backup > %s)"
    for days in next_backup.LONGEST_PAUSE_DAYS
]
"""The condition of ``next_backup.later_than_schedule`` as SQL."""
_COLUMNS = f"""
SELECT date_removed IS NOT NULL, id, secret_hash, active, auth_id, environment_name, service_name,
    running_system, date_checked_in > %s AND date_checked_in < %s, EXISTS (
    SELECT 1 FROM {Source._meta.db_table} AS source
    WHERE source.machine_id = machine.id AND source.active AND source.published
    AND (source.date_next_backup <= %s{"".join(_LATER_THAN_SCHEDULE)})
)"""  # noqa: S608  (the names of our own tables)
_RESTORES = f""", EXISTS (
    SELECT 1 FROM {RestoreRequest._meta.db_table} AS restore
    WHERE restore.target_id = machine.id AND restore.date_offered <= %s
), EXISTS (SELECT 1 FROM {RestoreRequest._meta.db_table} WHERE date_offered IS NOT NULL)"""  # noqa: S608
_FROM = f"""
FROM {Machine._meta.db_table} AS machine
WHERE uuid = %s
"""
_LOOK = f"{_COLUMNS}, FALSE, TRUE{_FROM}"
_LOOK_FOR_RESTORES_TOO = f"{_COLUMNS}{_RESTORES}{_FROM}"
"""The query that also returns whether the machine has a restore, and whether any machine has one.

Planning this takes the database a quarter more time for a checkin, so it is used only if the answer is not known
(offer_cache.py).
"""
_uuid = Machine._meta.get_field("uuid")
_moment = Machine._meta.get_field("date_checked_in")


@dataclass(frozen=True)
class PendingWork:
    """The work that waits for a machine: due sources, restores, or both."""

    machine_key: int
    has_due: bool
    has_restores: bool
    profiles: str | None = None
    """The digest of the machine's profiles, where it has other ones."""
    running_system: str = ""
    """The running system that checked in last."""

    @property
    def is_empty(self) -> bool:
        return not (self.has_due or self.has_restores or self.profiles is not None)


def pending_work(uuid: UUID, secret: str, profiles: str | UnsetType = UNSET, *, now: datetime) -> PendingWork:
    """Return the work that waits for the machine, and record its checkin.

    ``profiles`` is the digest of the profiles that the machine has, if it accepts any. The switches of machine and
    storage are not checked here. Raises ApiForbidden.
    """
    look, last = (_LOOK_FOR_RESTORES_TOO, (now,)) if offer_cache.may_exist() else (_LOOK, ())
    latest = [moment for _days, moment in next_backup.latest_due_dates(now=now)]
    values = (*authentication.recent_checkin_range(now), now, *latest, *last)
    moments = [_moment.get_db_prep_value(value, connection) for value in values]
    with connection.cursor() as cursor:
        cursor.execute(look, [*moments, _uuid.get_db_prep_value(uuid, connection)])
        row = cursor.fetchone()
    if row is None:
        authentication.require_machine_secret(None, secret)
        raise authentication.invalid_credentials()
    (
        is_removed,
        *columns,
        auth_key,
        environment,
        service,
        running_system,
        is_noted,
        has_due,
        has_restores,
        are_there_any,
    ) = row
    if not are_there_any:
        offer_cache.remember_none()
    machine = Machine.from_db(connection.alias, ("id", "secret_hash", "active"), columns)
    authentication.require_machine_secret(machine, secret, is_removed=is_removed)
    if not is_noted:
        authentication.write_checkin(machine, now=now)
    digest = None if profiles is UNSET else offers.digest(Group(auth_key, environment, service))
    other = None if digest == profiles else digest
    return PendingWork(machine.pk, bool(has_due), bool(has_restores), other, running_system)
