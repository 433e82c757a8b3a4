"""Health marks of storages and machines: the one definition, for the admin site, `turku_health` and filters."""

from __future__ import annotations

from collections.abc import Container, Mapping
from datetime import datetime, timedelta

from django.db import models
from django.db.models import Case, Q, QuerySet, Value, When
from django.db.models.functions import Coalesce

from turku.api.fleet.models import Machine, Storage

STORAGE_SILENCE = timedelta(minutes=30)
MACHINE_SILENCE = timedelta(hours=10)


class Mark(models.TextChoices):
    """How something is; ``is_problem`` says whether somebody must act."""

    OK = "ok", "ok"
    OFF = "off", "switched off"
    SILENT = "silent", "silent"
    UNASSIGNED = "unassigned", "no storage"
    FAILED = "failed", "failed"
    OVERDUE = "overdue", "overdue"
    FAULTY = "faulty", "faulty"
    SUSPICIOUS = "suspicious", "suspicious"
    DAMAGED = "damaged", "damaged"
    FALLING_BACK = "falling-back", "full each time"

    @property
    def is_problem(self) -> bool:
        # What is backed up in full each time is slow, and backed up.
        return self not in (Mark.OK, Mark.OFF, Mark.FALLING_BACK)


def off(path: str) -> Q:
    """Whether what is at the path (``""``, ``"machine__"``) is switched off by operator or owner."""
    return Q(**{f"{path}active": False}) | Q(**{f"{path}published": False})


Conditions = Mapping[Mark, Q]
"""Marks in the order of their precedence, each with what makes it so; none of them: ``ok``."""


def mark_of(conditions: Conditions) -> Case:
    """The expression of the first mark whose condition holds, else ``ok``."""
    whens = [When(condition, then=Value(mark.value)) for mark, condition in conditions.items()]
    return Case(*whens, default=Value(Mark.OK.value), output_field=models.CharField())


def has_mark(conditions: Conditions, wanted: Container[Mark]) -> Q:
    """That the first mark whose condition holds is one of those wanted.

    The same as asking for the value of ``mark_of``, in a form of which the database can use its indexes.
    """
    found, none_before = Q(pk__in=()), Q()
    for mark, condition in conditions.items():
        if mark in wanted:
            found |= none_before & condition
        else:
            none_before &= ~condition
    return found | none_before if Mark.OK in wanted else found


def storage_conditions(*, now: datetime) -> Conditions:
    """The marks of storages; a new one has as long as any other until it counts as silent. For rows of ``storages``."""
    return {
        Mark.OFF: off(""),
        Mark.SILENT: Q(last_seen__lt=now - STORAGE_SILENCE),
        Mark.FAULTY: ~Q(faults=[]),
    }


def storages(*, now: datetime) -> QuerySet[Storage]:
    """All storages, each with its ``mark``."""
    seen = Storage.objects.annotate(last_seen=Coalesce("date_checked_in", "date_registered"))
    return seen.annotate(mark=mark_of(storage_conditions(now=now)))


def machine_conditions(*, now: datetime) -> Conditions:
    """The marks of machines, for rows of ``machines``.

    One whose storage is switched off is marked too: nobody backs it up. A new one may wait for a storage as long as a
    storage may be silent.
    """
    without_storage = Q(storage=None) | off("storage__")
    return {
        Mark.OFF: off(""),
        Mark.SILENT: Q(last_seen__lt=now - MACHINE_SILENCE),
        Mark.UNASSIGNED: without_storage & Q(date_registered__lt=now - STORAGE_SILENCE),
    }


def machines(*, now: datetime) -> QuerySet[Machine]:
    """All machines, each with its ``mark``."""
    seen = Machine.objects.annotate(last_seen=Coalesce("date_checked_in", "date_registered"))
    return seen.annotate(mark=mark_of(machine_conditions(now=now)))
