"""Why a source has its mark, in the words of whoever found it, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from datetime import datetime
from typing import Any

from django.utils import timezone

from turku.api.backups.models import Source
from turku.api.backups.next_backup import next_due
from turku.api.status import source_marks
from turku.api.status.marks import Mark, has_mark, mark_of

WORST_LIMIT = 2000
"""Sources that are read to find the worst ones of the machines of a page."""


def reason(source: Source, mark: Mark, *, now: datetime) -> str:
    """Return why the source has the mark, on one line; nothing where the mark says it all."""
    if mark is Mark.QUARANTINED:
        return "; ".join(source.findings)
    if mark is Mark.WITHDRAWN:
        return f"its machine declares it no more since {_day(source.date_withdrawn)}: nothing new of it is backed up"
    if mark is Mark.FAILED:
        times = f" ({source.failure_count} failures in a row)" if source.failure_count > 1 else ""
        return f"{source.failure_reason}{times}" if source.failure_reason else ""
    if mark is Mark.INCOMPLETE:
        return incompleteness(source)
    if mark is Mark.OVERDUE:
        return _lateness(source, now=now)
    if mark is Mark.FALLING_BACK:
        return source.fallback_reason
    if mark is Mark.MUTED:
        return f"until {_day(source.machine.date_muted_until)}: {source.machine.mute_reason}"
    return ""


def incompleteness(source: Source) -> str:
    """Return since when the snapshots of the source lack files, how many, and the first reasons; else nothing."""
    if source.date_incomplete_since is None:
        return ""
    kinds = ((source.missing_files, "missing"), (source.stale_files, "stale"))
    counts = " and ".join(f"{_files(count)} {word}" for count, word in kinds if count)
    reasons = f": {'; '.join(source.incomplete_reasons)}" if source.incomplete_reasons else ""
    return f"since {_day(source.date_incomplete_since)}, {counts}{reasons}"


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


def _day(moment: datetime | None) -> str:
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M}" if moment else "-"


def _lateness(source: Source, *, now: datetime) -> str:
    last = source.date_last_backed_up
    if next_due(source, now=now) != source.date_next_backup:
        planned = f"{_day(source.date_next_backup)} is later than its schedule allows"
        return f"the clock of the coordinator was ahead when the next backup was planned: {planned}"
    if last is None:
        return f"no good backup since it was added on {_day(source.date_added)}"
    return f"the last good backup was on {_day(last)}"


def next_step(source: Source, mark: Mark) -> str:
    """Return what an operator does about it; nothing where there is nothing to do."""
    chosen = f"--machine {source.machine.uuid} --source {shlex.quote(source.name)}"
    where = f"on the storage {source.machine.storage}" if source.machine.storage else "on its storage"
    if mark is Mark.QUARANTINED:
        return (
            f"Look at the signs {where}: turku-storage quarantine list {chosen}. Judge the snapshot with "
            "'quarantine accept' where the change was meant, else with 'quarantine reject'. "
            "Nothing of the source is pruned until then. The next backup that is not suspicious ends the mark."
        )
    if mark is Mark.DAMAGED:
        return "Look at the damaged files of the source; those that nobody can repair are to be judged there."
    if mark is Mark.WITHDRAWN:
        named = f"{source.machine.uuid} {shlex.quote(source.name)}"
        return (
            "Where this is not meant, look on the machine for a file that is lost or emptied in "
            "/etc/turku-agent/sources.d, put it back, and run turku-update-config. Where it is, confirm it with the "
            f"action of that name in the list of sources, or with turku-api machine confirm-withdrawal {named}."
        )
    if mark is Mark.FAILED:
        return (
            "Read the whole summary in its backup runs. It is tried again by itself; "
            f"turku-api back-up-now {source.machine.uuid} {shlex.quote(source.name)} makes it due at once."
        )
    if mark is Mark.OVERDUE:
        return (
            "Run turku-agent-ping --debug on the machine: it shows whether the source is due and the storage reached."
        )
    if mark is Mark.INCOMPLETE:
        return (
            "Make the named files readable for the agent on the machine, or exclude them; the next complete backup "
            "ends the mark. Stale files are in the snapshots as they were at their last good backup."
        )
    return ""


def worst_sources(machines: Collection[Any], *, now: datetime) -> dict[Any, Source]:
    """Return the source with the worst mark of each of these machines (primary keys) that has a marked one.

    One query for all of them; each source has its ``mark``.
    """
    conditions = source_marks.conditions(now=now)
    wanted = [mark for mark in conditions if mark is not Mark.OFF]
    rows = Source.objects.filter(has_mark(conditions, wanted), machine__in=list(machines))
    rows = rows.annotate(mark=mark_of(conditions)).select_related("machine__storage")
    worst: dict[Any, Source] = {}
    order = list(Mark)
    for row in rows.order_by("machine", "name")[:WORST_LIMIT]:
        known = worst.get(row.machine_id)
        if known is None or order.index(_mark(row)) < order.index(_mark(known)):
            worst[row.machine_id] = row
    return worst


def _mark(row: Any) -> Mark:
    return Mark(row.mark)
