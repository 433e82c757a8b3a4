"""The reason for a mark of a source or machine, as its finder reported it, and the next step."""

import shlex
from collections.abc import Callable, Collection
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from turku.api.backups.models import Source
from turku.api.backups.next_backup import next_due
from turku.api.integrity.models import OPEN, Damage
from turku.api.status import outdated, source_marks
from turku.api.status.marks import Mark, has_mark, mark_of
from turku.core.units import count_of

if TYPE_CHECKING:
    from turku.api.status.source_marks import MarkedSource

_NAMED = 5
WORST_LIMIT = 2000
"""The number of sources that are read to find the worst ones of a page of machines."""


def source_reason(source: Source, mark: Mark, *, now: datetime) -> str:
    """Return the reason for the mark of the source on one line, or an empty text."""
    reasons: dict[Mark, Callable[[], str]] = {
        Mark.QUARANTINED: lambda: "; ".join(source.findings) or "its storage does not say why",
        Mark.DAMAGED: lambda: _damage(source),
        Mark.WITHDRAWN: lambda: f"not declared by its machine since {_day(source.date_withdrawn)}: no new backups",
        Mark.FAILED: lambda: _failure(source),
        Mark.INCOMPLETE: lambda: incompleteness(source),
        Mark.OVERDUE: lambda: _lateness(source, now=now),
        Mark.FALLING_BACK: lambda: source.fallback_reason,
        Mark.MUTED: lambda: f"until {_day(source.machine.date_muted_until)}: {source.machine.mute_reason}",
    }
    return reasons[mark]() if mark in reasons else ""


def _failure(source: Source) -> str:
    times = f" ({source.failure_count} failures in a row)" if source.failure_count > 1 else ""
    return f"{source.failure_reason or 'its last run failed, and its storage does not say why'}{times}"


def _damage(source: Source) -> str:
    paths = list(Damage.objects.filter(OPEN, source=source).order_by("pk").values_list("path", flat=True)[: _NAMED + 1])
    more = ", ..." if len(paths) > _NAMED else ""
    return f"files of its history are damaged: {', '.join(paths[:_NAMED])}{more}"


def incompleteness(source: Source) -> str:
    """Return since when the source lacks files, their number and the first reasons, or an empty text."""
    if source.date_incomplete_since is None:
        return ""
    kinds = ((source.missing_files, "missing"), (source.stale_files, "stale"))
    counts = " and ".join(f"{count_of(count, 'file')} {word}" for count, word in kinds if count)
    reasons = f": {'; '.join(source.incomplete_reasons)}" if source.incomplete_reasons else ""
    return f"since {_day(source.date_incomplete_since)}, {counts}{reasons}"


def _day(moment: datetime | None) -> str:
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M}" if moment else "never"


def _lateness(source: Source, *, now: datetime) -> str:
    last = source.date_last_backed_up
    if next_due(source, now=now) != source.date_next_backup:
        planned = f"{_day(source.date_next_backup)} is later than its schedule allows"
        return f"the clock of the coordinator was ahead when the next backup was planned: {planned}"
    if last is None:
        return f"no good backup since it was added on {_day(source.date_added)}"
    return f"the last good backup was on {_day(last)}"


def source_next_step(source: Source, mark: Mark) -> str:
    """Return the next step for the mark of the source, or an empty text."""
    name = shlex.quote(source.name)
    where = f"on the storage {source.machine.storage}" if source.machine.storage else "on its storage"
    steps = {
        Mark.QUARANTINED: (
            f"Read the findings {where}: "
            f"turku-storage quarantine list --machine {source.machine.uuid} --source {name}. "
            "Run 'quarantine accept' if the change was intended, else 'quarantine reject'. "
            "No snapshot of the source is deleted until then. The next backup without findings clears the mark."
        ),
        Mark.DAMAGED: "Look at the damaged files of the source. Acknowledge those that cannot be repaired.",
        Mark.WITHDRAWN: (
            "If this was not intended, look on the machine for a missing or empty file in /etc/turku-agent/sources.d, "
            "restore it, and run turku-update-config. If it was, run the action 'Confirm withdrawal' in the list of "
            f"sources, or turku-api machine confirm-withdrawal {source.machine.uuid} {name}."
        ),
        Mark.FAILED: (
            "Read the whole summary in its backup runs. The backup is retried automatically. "
            f"turku-api back-up-now {source.machine.uuid} {name} makes it due at once."
        ),
        Mark.OVERDUE: (
            "Run turku-agent-ping --debug on the machine. It shows whether the source is due and whether the storage "
            "is reachable."
        ),
        Mark.INCOMPLETE: (
            "Make the named files readable for the agent on the machine, or exclude them. The next complete backup "
            "clears the mark. The snapshots hold stale files as they were at their last good backup."
        ),
    }
    return steps.get(mark, "")


def machine_reason(machine: Any, worst: "MarkedSource | None", *, now: datetime) -> str:
    """Return the reason for the mark of a row of ``fleet_marks.machines``.

    ``worst`` is its source with the worst mark, or None.
    """
    mark = Mark(machine.mark)
    own: dict[Mark, Callable[[], str]] = {
        Mark.OK: lambda: "",
        Mark.OFF: lambda: "",
        Mark.MUTED: lambda: f"until {_day(machine.date_muted_until)}: {machine.mute_reason}",
        Mark.SILENT: lambda: _silence(machine, now=now),
        Mark.UNASSIGNED: lambda: _unassigned(machine),
        Mark.STORAGE_SILENT: lambda: f"its storage {machine.storage} is silent",
        Mark.COPIED: lambda: f"two running systems used its identity by turns, last on {_day(machine.date_clone_seen)}",
        Mark.OUTDATED: lambda: outdated.reason(machine),
        Mark.SESSION_FAILED: lambda: "; ".join(_failed_session(each) for each in machine.session_failures),
        Mark.REFUSED: lambda: "; ".join(f"{name}: {said}" for name, said in machine.refused_sources.items()),
    }
    if mark in own:
        return own[mark]()
    if worst is None or Mark(worst.mark) is not mark:
        return f"one of its sources is {mark.label}"
    said = source_reason(worst, mark, now=now)
    return f"{worst.name}: {said}" if said else worst.name


def _unassigned(machine: Any) -> str:
    if machine.storage is None:
        return f"no storage had space for it since {_day(machine.date_registered)}"
    return f"its storage {machine.storage} is switched off"


def _silence(row: Any, *, now: datetime) -> str:
    if row.last_seen > now:
        return f"its last checkin is dated in the future, {_day(row.last_seen)}: a clock was ahead"
    return f"not heard of since {_day(row.last_seen)}"


def storage_reason(storage: Any, *, now: datetime) -> str:
    """Return the reason for the mark of a row of ``fleet_marks.storages``."""
    mark = Mark(storage.mark)
    if mark is Mark.SILENT:
        return _silence(storage, now=now)
    if mark is Mark.OUTDATED:
        return outdated.reason(storage)
    return "" if mark is Mark.OFF else "; ".join(storage.faults)


def machine_next_step(machine: Any, worst: "MarkedSource | None") -> str:
    """Return the next step for the mark of a row of ``fleet_marks.machines``, or an empty text."""
    mark = Mark(machine.mark)
    steps = {
        Mark.SILENT: (
            "Look on the machine whether it runs and reaches the coordinator: systemctl status turku-agent-ping.timer, "
            "turku-agent-ping --debug. One that is meant to be away is muted here, or has a policy that lets it."
        ),
        Mark.COPIED: (
            "Give the copy an identity of its own: on the copy, stop turku-agent-ping.timer, remove "
            "10-machine_uuid.json from config.d in /var/lib/turku-agent and the ssh_key files beside config.d, and run "
            "turku-update-config. The mark ends a day after the last checkin of a second system."
        ),
        Mark.OUTDATED: "Upgrade the packages on the machine.",
        Mark.UNASSIGNED: "Enable a storage that has space, or choose one here.",
        Mark.STORAGE_SILENT: (
            f"Look on the storage {machine.storage}: systemctl status turku-storage-update-config.timer."
        ),
        Mark.SESSION_FAILED: (
            "Run turku-agent status on the machine. A storage whose host keys changed is accepted there: turku-agent "
            "storages, turku-agent accept-storage. The next session that works clears the mark."
        ),
        Mark.REFUSED: (
            "Correct the source in /etc/turku-agent/sources.d on the machine (turku-agent check names file and line), "
            "then run turku-update-config there. What was declared of it before stays in force."
        ),
    }
    if mark in steps:
        return steps[mark]
    if worst is None or Mark(worst.mark) is not mark:
        return ""
    return source_next_step(worst, mark)


def _failed_session(failure: dict[str, Any]) -> str:
    since = _day(datetime.fromisoformat(failure["since"]))
    sources = f" (for {', '.join(failure['sources'])})" if failure["sources"] else ""
    return f"{failure['reason']}{sources}, since {since}"


def worst_sources(machines: Collection[Any], *, now: datetime) -> "dict[Any, MarkedSource]":
    """Return the source with the worst mark for each of these machines (primary keys), with one query.

    Machines without a marked source are absent. Each source is annotated with its ``mark``.
    """
    conditions = source_marks.conditions(now=now)
    wanted = [mark for mark in conditions if mark is not Mark.OFF]
    rows = Source.objects.filter(has_mark(conditions, wanted), machine__in=list(machines))
    rows = rows.annotate(mark=mark_of(conditions)).select_related("machine__storage")
    worst: dict[Any, MarkedSource] = {}
    order = list(Mark)
    for row in rows.order_by("machine", "name")[:WORST_LIMIT]:
        known = worst.get(row.machine_id)
        if known is None or order.index(Mark(row.mark)) < order.index(Mark(known.mark)):
            worst[row.machine_id] = row
    return worst
