"""Health marks of storages and machines: the one definition, for the admin site, `turku_health` and filters."""

from __future__ import annotations

from datetime import datetime

from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce

from turku.api.admission.models import Slot
from turku.api.backups import source_marks
from turku.api.backups.models import Source
from turku.api.fleet import away
from turku.api.fleet.marks import Conditions, Mark, has_mark, mark_of, off, worst_first
from turku.api.fleet.models import Machine, Storage
from turku.api.fleet.thresholds import STORAGE_SILENCE, USUAL, Thresholds

__all__ = [
    "STORAGE_SILENCE",
    "Conditions",
    "Mark",
    "has_mark",
    "machine_conditions",
    "machines",
    "mark_of",
    "off",
    "storage_conditions",
    "storages",
]


def storage_conditions(*, now: datetime, thresholds: Thresholds = USUAL) -> Conditions:
    """The marks of storages; a new one has as long as any other until it counts as silent. For rows of ``storages``."""
    return {Mark.OFF: off(""), Mark.SILENT: Q(last_seen__lt=now - thresholds.storage_silence)}


def storages(*, now: datetime, thresholds: Thresholds = USUAL) -> QuerySet[Storage]:
    """All storages, each with its ``mark``."""
    return _seen_storages().annotate(mark=mark_of(storage_conditions(now=now, thresholds=thresholds)))


def _seen_storages() -> QuerySet[Storage]:
    return Storage.objects.annotate(last_seen=Coalesce("date_checked_in", "date_registered"))


def machine_conditions(*, now: datetime, thresholds: Thresholds = USUAL) -> Conditions:
    """The marks of machines, for rows of ``machines``: the worst of a machine's own and of its sources'.

    One whose storage is switched off or silent is marked too: nobody backs it up. A new one may wait for a storage as
    long as a storage may be silent. One whose backup is under way does not ask meanwhile.
    """
    without_storage = Q(storage=None) | off("storage__")
    at_work = Slot.objects.filter(machine__isnull=False, date_begun__isnull=False, date_expires__gt=now)
    silent = has_mark(storage_conditions(now=now, thresholds=thresholds), [Mark.SILENT])
    own = {
        Mark.OFF: off(""),
        Mark.SILENT: _silent(now=now, thresholds=thresholds) & ~Q(pk__in=at_work.order_by().values("machine")),
        Mark.UNASSIGNED: without_storage & Q(date_registered__lt=now - thresholds.storage_silence),
        Mark.STORAGE_SILENT: Q(storage__in=_seen_storages().filter(silent).order_by().values("pk")),
    }
    return worst_first({**own, **_of_sources(source_marks.conditions(now=now, thresholds=thresholds))})


def _silent(*, now: datetime, thresholds: Thresholds) -> Q:
    if thresholds.machine_silence is not None:
        return Q(last_seen__lt=now - thresholds.machine_silence)
    return away.matching(lambda span: Q(last_seen__lt=now - span))


def _of_sources(conditions: Conditions) -> Conditions:
    """Return the marks of sources as marks of their machines; the database looks the few rows of each up once."""
    counted = Source.objects.exclude(conditions[Mark.OFF]).order_by()
    return {
        mark: Q(pk__in=counted.filter(condition).values("machine"))
        for mark, condition in conditions.items()
        if mark is not Mark.OFF
    }


def machines(*, now: datetime, thresholds: Thresholds = USUAL) -> QuerySet[Machine]:
    """All machines, each with its ``mark``."""
    seen = Machine.objects.annotate(last_seen=Coalesce("date_checked_in", "date_registered"))
    return seen.annotate(mark=mark_of(machine_conditions(now=now, thresholds=thresholds)))
