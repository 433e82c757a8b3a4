"""Health marks of storages and machines: the one definition, for the admin site, `turku_health` and filters."""

from __future__ import annotations

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

    @property
    def is_problem(self) -> bool:
        return self not in (Mark.OK, Mark.OFF)


def mark_case(*whens: When) -> Case:
    """The expression of the first mark whose condition holds, else ``ok``."""
    return Case(*whens, default=Value(Mark.OK.value), output_field=models.CharField())


def off(*paths: str) -> Q:
    """Whether something at one of these paths (``""``, ``"machine__"``) is switched off by operator or owner."""
    condition = Q()
    for path in paths:
        condition |= Q(**{f"{path}active": False}) | Q(**{f"{path}published": False})
    return condition


def storages(*, now: datetime) -> QuerySet[Storage]:
    """All storages, each with its ``mark``; a new one has as long as any other until it counts as silent."""
    return Storage.objects.annotate(last_seen=Coalesce("date_checked_in", "date_registered")).annotate(
        mark=mark_case(
            When(off(""), then=Value(Mark.OFF.value)),
            When(last_seen__lt=now - STORAGE_SILENCE, then=Value(Mark.SILENT.value)),
        )
    )


def machines(*, now: datetime) -> QuerySet[Machine]:
    """All machines, each with its ``mark``.

    One whose storage is switched off is marked too: nobody backs it up. A new one may wait for a storage as long as a
    storage may be silent.
    """
    without_storage = Q(storage=None) | off("storage__")
    return Machine.objects.annotate(last_seen=Coalesce("date_checked_in", "date_registered")).annotate(
        mark=mark_case(
            When(off(""), then=Value(Mark.OFF.value)),
            When(last_seen__lt=now - MACHINE_SILENCE, then=Value(Mark.SILENT.value)),
            When(without_storage, date_registered__lt=now - STORAGE_SILENCE, then=Value(Mark.UNASSIGNED.value)),
        )
    )
