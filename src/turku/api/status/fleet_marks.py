"""Health marks of storages and machines: the one definition, for the admin site, `turku_health` and filters."""

from __future__ import annotations

from datetime import datetime

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Coalesce

from turku.api.backups.models import Source
from turku.api.fleet import silence
from turku.api.fleet.models import Machine, Storage
from turku.api.queue.models import Slot, held
from turku.api.status import source_marks
from turku.api.status.limits import DEFAULT_LIMITS, HealthLimits
from turku.api.status.marks import Conditions, Mark, has_mark, mark_of, muted, off, worst_first
from turku.policy.timing.clock_agreement import COORDINATORS_TOLERANCE

NAMED = 10
"""Silent machines that are named; the others are counted."""


def storage_conditions(*, now: datetime, limits: HealthLimits = DEFAULT_LIMITS) -> Conditions:
    """The marks of storages; a new one has as long as any other until it counts as silent. For rows of ``storages``."""
    silent = Q(last_seen__lt=now - limits.storage_silence) | _seen_in_future(now=now)
    return {Mark.OFF: off(""), Mark.SILENT: silent, Mark.FAULTY: ~Q(faults=[])}


def _seen_in_future(*, now: datetime) -> Q:
    """Return that a clock which was ahead wrote when a row was seen: it says nothing of now."""
    return Q(last_seen__gt=now + COORDINATORS_TOLERANCE)


def storages(*, now: datetime, limits: HealthLimits = DEFAULT_LIMITS) -> QuerySet[Storage]:
    """All storages, each with its ``mark``."""
    return _seen_storages().annotate(mark=mark_of(storage_conditions(now=now, limits=limits)))


def _seen_storages() -> QuerySet[Storage]:
    return Storage.objects.annotate(last_seen=Coalesce("date_checked_in", "date_registered"))


def machine_conditions(*, now: datetime, limits: HealthLimits = DEFAULT_LIMITS, is_for_all: bool = True) -> Conditions:
    """The marks of machines, for rows of ``machines``: the worst of a machine's own and of its sources'.

    ``is_for_all``: in the form that finds the machines with a mark among all; else in the one that finds the marks of
    given machines.

    One whose storage is switched off or silent is marked too: nobody backs it up. A new one may wait for a storage as
    long as a storage may be silent. One whose backup is under way does not ask meanwhile.
    """
    without_storage = Q(storage=None) | off("storage__")
    own = {
        Mark.OFF: off(""),
        Mark.MUTED: muted("", now=now),
        Mark.SILENT: _silent(now=now, limits=limits),
        Mark.UNASSIGNED: without_storage & Q(date_registered__lt=now - limits.storage_silence),
        Mark.STORAGE_SILENT: _of_silent_storages(now=now, limits=limits),
    }
    of_sources = source_marks.conditions(now=now, limits=limits)
    return worst_first({**own, **_of_sources(of_sources, is_for_all=is_for_all)})


def _silent(*, now: datetime, limits: HealthLimits) -> Q:
    if limits.machine_silence is not None:
        late = Q(last_seen__lt=now - limits.machine_silence)
    else:
        late = silence.silence_condition(lambda span: Q(last_seen__lt=now - span))
    late |= _seen_in_future(now=now)
    at_work = Slot.objects.filter(held(now=now), date_begun__isnull=False)
    return late & ~Q(pk__in=at_work.order_by().values("machine"))


def _of_silent_storages(*, now: datetime, limits: HealthLimits) -> Q:
    silent = has_mark(storage_conditions(now=now, limits=limits), [Mark.SILENT])
    return Q(storage__in=_seen_storages().filter(silent).order_by().values("pk"))


def _of_sources(conditions: Conditions, *, is_for_all: bool) -> Conditions:
    """Return the marks of sources as marks of their machines.

    The database looks the few rows of each mark up once, or for each machine its few sources.
    """
    is_kept = Q(storage__active=True, storage__published=True)
    counted = Source.objects.exclude(source_marks.OFF_BY_ITSELF).order_by()
    return {
        mark: is_kept & Q(pk__in=counted.filter(condition).values("machine"))
        if is_for_all
        else is_kept & Q(Exists(counted.filter(condition, machine=OuterRef("pk"))))
        for mark, condition in conditions.items()
        if mark not in (Mark.OFF, Mark.MUTED)
    }


def machines(*, now: datetime, limits: HealthLimits = DEFAULT_LIMITS) -> QuerySet[Machine]:
    """All machines, each with its ``mark``."""
    return _seen_machines().annotate(mark=mark_of(machine_conditions(now=now, limits=limits, is_for_all=False)))


def _seen_machines() -> QuerySet[Machine]:
    return Machine.objects.annotate(last_seen=Coalesce("date_checked_in", "date_registered"))


def silent_machines(*, now: datetime) -> QuerySet[Machine]:
    """Return the machines that are silent or have a silent storage, whatever other mark they have."""
    is_silent = _silent(now=now, limits=DEFAULT_LIMITS) | _of_silent_storages(now=now, limits=DEFAULT_LIMITS)
    return _seen_machines().filter(is_silent)


def silent_sentence(sources: QuerySet[Source], *, now: datetime) -> str:
    """Return which machines of these sources are not heard of, so that nothing starts soon; nothing where all are."""
    of_sources = sources.filter(active=True, published=True).order_by().values("machine")
    silent = silent_machines(now=now).filter(pk__in=of_sources, active=True, published=True)
    count = silent.count()
    if not count:
        return ""
    named = ", ".join(str(machine) for machine in silent[:NAMED])
    more = f" and {count - NAMED} more" if count > NAMED else ""
    who = "the machine or its storage is" if count == 1 else "the machines or their storages are"
    # The name does not come first: the site would begin it with a capital letter.
    return f"Silent: {named}{more}. Nothing is backed up there until {who} heard of again."
