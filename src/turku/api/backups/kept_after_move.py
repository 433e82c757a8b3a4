"""The time for which a moved machine's history is kept on the former storage, where the operator names none."""

from datetime import datetime, timedelta

from turku.api.backups.models import Source
from turku.api.fleet.models import Machine
from turku.errors import InvalidValue
from turku.policy import retention
from turku.policy.timing import reach, schedule

SHORTEST = timedelta(days=90)


def default_end(machine: Machine, *, now: datetime) -> datetime:
    """Return the moment at which the new history reaches back as far as the retention of each source, or later.

    It is 90 days from now or later, however short the retention.
    """
    return now + max([SHORTEST, *map(_reach, machine.sources.all())])


def _reach(source: Source) -> timedelta:
    try:
        return reach.reach(retention.parse(source.retention), schedule.parse(source.frequency).period)
    except InvalidValue:
        return SHORTEST
