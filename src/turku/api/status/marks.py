"""The health marks, and the database expressions that compute them."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypedDict

from django.db import models
from django.db.models import Case, Q, Value, When

from turku.api.fleet.mute import LONGEST_MUTE


class Mark(models.TextChoices):
    """A health mark. After ``off``, the worst comes first.

    ``is_problem`` is True if somebody must act. Marks after ``muted`` do not count for a muted machine.
    """

    OK = "ok", "ok"
    OFF = "off", "switched off"
    QUARANTINED = "quarantined", "quarantined"
    DAMAGED = "damaged", "damaged"
    WITHDRAWN = "withdrawn", "withdrawn"
    MUTED = "muted", "muted"
    FAILED = "failed", "failed"
    SILENT = "silent", "silent"
    UNMOUNTED = "unmounted", "unmounted"
    FULL = "full", "full"
    CLOCK_OFF = "clock-off", "clock off"
    UNASSIGNED = "unassigned", "no storage"
    FAULTY = "faulty", "faulty"
    STORAGE_SILENT = "storage-silent", "storage silent"
    SESSION_FAILED = "session-failed", "session failed"
    REFUSED = "refused", "source refused"
    OVERDUE = "overdue", "overdue"
    INCOMPLETE = "incomplete", "incomplete"
    COPIED = "copied", "copied"
    OUTDATED = "outdated", "outdated"
    FALLING_BACK = "falling-back", "full each time"

    @property
    def is_problem(self) -> bool:
        # A source with full backups each time is slow but backed up. An operator knows about muted machines.
        return self not in (Mark.OK, Mark.OFF, Mark.MUTED, Mark.FALLING_BACK)


@dataclass(frozen=True)
class HealthLimits:
    """The times after which something counts as silent or overdue.

    ``machine_silence`` of None leaves that limit to policies.
    """

    storage_silence: timedelta = timedelta(minutes=30)
    machine_silence: timedelta | None = None
    overdue: timedelta = timedelta(hours=10)


DEFAULT_LIMITS = HealthLimits()


def off(path: str) -> Q:
    """Return a condition that the row at the path (``""``, ``"machine__"``) is switched off by operator or owner."""
    return Q(**{f"{path}active": False}) | Q(**{f"{path}published": False})


def muted(path: str, *, now: datetime) -> Q:
    """Return a condition that the machine at the path (``""``, ``"machine__"``) is muted by an operator.

    A date beyond the longest mute, from a clock that was ahead, does not count.
    """
    return Q(**{f"{path}date_muted_until__gt": now, f"{path}date_muted_until__lte": now + LONGEST_MUTE})


class Marked(TypedDict):
    """The annotation of a row with its health mark, for ``WithAnnotations``."""

    mark: str


Conditions = Mapping[Mark, Q]
"""Marks in the order of their precedence, each with its condition. If none holds, the mark is ``ok``."""


def worst_first(conditions: Conditions) -> Conditions:
    """Return the conditions in the order in which ``Mark`` names the marks."""
    return {mark: conditions[mark] for mark in Mark if mark in conditions}


def mark_of(conditions: Conditions) -> Case:
    """Return an expression of the first mark whose condition holds, or ``ok``."""
    whens = [When(condition, then=Value(mark.value)) for mark, condition in conditions.items()]
    return Case(*whens, default=Value(Mark.OK.value), output_field=models.CharField())


def has_mark(conditions: Conditions, wanted: Container[Mark]) -> Q:
    """Return a condition that the first mark whose condition holds is one of those wanted.

    It equals a comparison with ``mark_of``, in a form that lets the database use its indexes.
    """
    found, none_before = Q(pk__in=()), Q()
    for mark, condition in conditions.items():
        if mark in wanted:
            found |= none_before & condition
        else:
            none_before &= ~condition
    return found | none_before if Mark.OK in wanted else found
