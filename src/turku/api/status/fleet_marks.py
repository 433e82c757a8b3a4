"""The health marks of storages and machines, for the admin site, `turku_health` and filters."""

from datetime import datetime
from typing import TYPE_CHECKING

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Coalesce

from turku.api.backups.models import Source
from turku.api.fleet import policies
from turku.api.fleet.identity import clones
from turku.api.fleet.models import SESSIONS_FAILED, SOURCES_REFUSED, Machine, Storage
from turku.api.queue.models import Slot, is_held_condition
from turku.api.status import outdated, source_marks
from turku.api.status.marks import (
    DEFAULT_LIMITS,
    Conditions,
    HealthLimits,
    Mark,
    Marked,
    has_mark,
    mark_of,
    muted,
    off,
    worst_first,
)
from turku.policy.timing.clock_agreement import COORDINATORS_TOLERANCE
from turku.protocol.messages import FAULT_CLOCK, FAULT_FULL, FAULT_UNMOUNTED

if TYPE_CHECKING:
    from django_stubs_ext import WithAnnotations

FAULT_MARKS = {FAULT_UNMOUNTED: Mark.UNMOUNTED, FAULT_FULL: Mark.FULL, FAULT_CLOCK: Mark.CLOCK_OFF}
"""The marks of kinds of faults that a storage reports, the worst first."""
NAMED = 10
"""The number of silent machines that a sentence names. The others are counted."""


def storage_conditions(*, now: datetime, limits: HealthLimits = DEFAULT_LIMITS) -> Conditions:
    """Return the conditions of the marks of storages, for rows of ``storages``.

    A new storage has as long as any other until it counts as silent.
    """
    silent = Q(last_seen__lt=now - limits.storage_silence) | _seen_in_future(now=now)
    return {
        Mark.OFF: off(""),
        Mark.SILENT: silent,
        **{mark: Q(fault_kind=kind) for kind, mark in FAULT_MARKS.items()},
        Mark.FAULTY: ~Q(faults=[]),
        Mark.OUTDATED: outdated.storages(),
    }


def _seen_in_future(*, now: datetime) -> Q:
    """Return a condition for rows whose last checkin was dated by a clock that was ahead."""
    return Q(last_seen__gt=now + COORDINATORS_TOLERANCE)


def storages(*, now: datetime, limits: HealthLimits = DEFAULT_LIMITS) -> "QuerySet[WithAnnotations[Storage, Marked]]":
    """Return all storages, each annotated with its ``mark``."""
    return Storage.objects.annotate(last_seen=_LAST_SEEN).annotate(
        mark=mark_of(storage_conditions(now=now, limits=limits))
    )


_LAST_SEEN = Coalesce("date_checked_in", "date_registered")


def machine_conditions(*, now: datetime, limits: HealthLimits = DEFAULT_LIMITS, is_for_all: bool = True) -> Conditions:
    """Return the conditions of the marks of machines, for rows of ``machines``.

    The mark of a machine is the worst of its own and its sources'. With ``is_for_all``, the conditions have the form
    that finds the machines with a mark among all. Otherwise they have the form that finds the marks of given machines.

    A machine with a storage that is switched off or silent is marked too, because nothing backs it up. A new machine
    may wait for a storage as long as a storage may be silent. A machine does not check in while its backup runs.
    """
    without_storage = Q(storage=None) | off("storage__")
    own = {
        Mark.OFF: off(""),
        Mark.MUTED: muted("", now=now),
        Mark.SILENT: _silent(now=now, limits=limits),
        Mark.UNASSIGNED: without_storage & Q(date_registered__lt=now - limits.storage_silence),
        Mark.COPIED: clones.seen(now=now),
        Mark.OUTDATED: outdated.machines(),
        Mark.STORAGE_SILENT: _of_silent_storages(now=now, limits=limits),
        Mark.SESSION_FAILED: SESSIONS_FAILED,
        Mark.REFUSED: SOURCES_REFUSED,
    }
    of_sources = source_marks.conditions(now=now, limits=limits)
    return worst_first({**own, **_of_sources(of_sources, is_for_all=is_for_all)})


def _silent(*, now: datetime, limits: HealthLimits) -> Q:
    if limits.machine_silence is not None:
        late = Q(last_seen__lt=now - limits.machine_silence)
    else:
        late = policies.silence_condition(lambda span: Q(last_seen__lt=now - span))
    late |= _seen_in_future(now=now)
    at_work = Slot.objects.filter(is_held_condition(now=now), date_begun__isnull=False)
    return late & ~Q(pk__in=at_work.order_by().values("machine"))


def _of_silent_storages(*, now: datetime, limits: HealthLimits) -> Q:
    silent = has_mark(storage_conditions(now=now, limits=limits), [Mark.SILENT])
    return Q(storage__in=Storage.objects.annotate(last_seen=_LAST_SEEN).filter(silent).order_by().values("pk"))


def _of_sources(conditions: Conditions, *, is_for_all: bool) -> Conditions:
    """Return the marks of sources as marks of their machines.

    The database looks up the few rows of each mark once, or the few sources of each machine.
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


def machines(*, now: datetime, limits: HealthLimits = DEFAULT_LIMITS) -> "QuerySet[WithAnnotations[Machine, Marked]]":
    """Return all machines, each annotated with its ``mark``."""
    return Machine.objects.annotate(last_seen=_LAST_SEEN).annotate(
        mark=mark_of(machine_conditions(now=now, limits=limits, is_for_all=False))
    )


def silent_machines(*, now: datetime) -> QuerySet[Machine]:
    """Return the machines that are silent or have a silent storage, whatever other mark they have."""
    is_silent = _silent(now=now, limits=DEFAULT_LIMITS) | _of_silent_storages(now=now, limits=DEFAULT_LIMITS)
    return Machine.objects.annotate(last_seen=_LAST_SEEN).filter(is_silent)


def silent_sentence(sources: QuerySet[Source], *, now: datetime) -> str:
    """Return a sentence that names the silent machines of these sources, or an empty text if none is silent.

    Nothing starts soon on a silent machine.
    """
    of_sources = sources.filter(active=True, published=True).order_by().values("machine")
    silent = silent_machines(now=now).filter(pk__in=of_sources, active=True, published=True)
    count = silent.count()
    if not count:
        return ""
    named = ", ".join(str(machine) for machine in silent[:NAMED])
    more = f" and {count - NAMED} more" if count > NAMED else ""
    who = "the machine or its storage is" if count == 1 else "the machines or their storages are"
    # The name is not first, because the site would capitalize it.
    return f"Silent: {named}{more}. Nothing is backed up there until {who} heard from again."
