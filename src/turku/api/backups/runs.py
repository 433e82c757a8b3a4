"""Backup runs: recorded from the reports of storages, and deleted when they are old."""

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from django.db import transaction

from turku.api.audit import log
from turku.api.backups.models import REASON_LENGTH, SOURCES_LIMIT, BackupRun, Source, StrategyChoices
from turku.api.backups.next_backup import NextBackups, retry_pause
from turku.api.database import many_rows
from turku.api.fleet.models import Machine, Storage
from turku.api.request.message_errors import MessageErrors
from turku.core.log import one_line
from turku.errors import ApiNotFound, InvalidValue, MalformedMessage
from turku.policy import names
from turku.policy.timing import clock_agreement
from turku.protocol.messages import STRATEGY_REASON_LIMIT, SourceReport

_log = logging.getLogger(__name__)

NO_REASON = "its storage gave no reason"
_LATEST_UNIX_SECONDS = datetime(2100, 1, 1, tzinfo=UTC).timestamp()
_STATE = (*("success", "quarantined", "failure_count"), *("date_last_backed_up", "date_next_backup", "date_expected"))
_RARELY_CHANGED = (
    *("fallback_count", "fallback_reason", "findings", "failure_reason"),
    *("date_incomplete_since", "missing_files", "stale_files", "incomplete_reasons"),
)
"""Columns that seldom change and are written only if they do."""
_REASONS_OF_A_SOURCE = 3
_COUNT_LIMIT = 10**15


def _moment(unix_seconds: float | None) -> datetime | None:
    if unix_seconds is None:
        return None
    if not 0 <= unix_seconds <= _LATEST_UNIX_SECONDS:
        raise InvalidValue("is not a Unix time between 1970 and 2100")
    return datetime.fromtimestamp(unix_seconds, UTC)


def _snapshot(name: str | None) -> str:
    return names.label(name, kind="snapshot name") if name else ""


def _clock_warning(report: SourceReport, now: datetime) -> str:
    """Return a warning about a backup that ends in the future, or an empty text.

    A late report is no reason for a warning.
    """
    end = report.time_end
    if end is None or end <= now.timestamp():
        return ""
    try:
        found = clock_agreement.disagreement(datetime.fromtimestamp(end, UTC), now, whose="the coordinator")
    except (ValueError, OverflowError, OSError):
        return ""
    return f"the clock of the storage is {found}" if found else ""


def _count(number: int) -> int:
    """Return the number, capped at what the database takes. A storage may send any number."""
    return min(number, _COUNT_LIMIT)


def _reasons(texts: Iterable[str]) -> list[str]:
    """Return these sentences of a storage as single lines, cut to REASON_LENGTH."""
    return [one_line(text)[:REASON_LENGTH] for text in texts]


def first_line(summary: str) -> str:
    """Return the first line that is not empty, or NO_REASON. A storage may send any text."""
    return next((line for line in _reasons(summary.splitlines()) if line.strip()), NO_REASON)


def _run(source: Source, storage: Storage, report: SourceReport, errors: MessageErrors, *, now: datetime) -> BackupRun:
    place = f"machine.sources.{source.name}"
    return BackupRun(
        source=source,
        storage=storage,
        date=now,
        success=report.success,
        snapshot=errors.check(f"{place}.snapshot", _snapshot, report.snapshot) or "",
        # A newer storage may send other strategies.
        strategy=report.strategy if report.strategy in StrategyChoices.values else "",
        strategy_reason=one_line(report.strategy_reason)[:STRATEGY_REASON_LIMIT],
        summary="\n".join(part for part in (_clock_warning(report, now), report.summary) if part),
        missing_files=_count(report.missing_files),
        stale_files=_count(report.stale_files),
        warning_count=_count(max(report.warning_count, len(report.warnings))),
        warnings=_reasons(report.warnings),
        date_begin=errors.check(f"{place}.time_begin", _moment, report.time_begin),
        date_end=errors.check(f"{place}.time_end", _moment, report.time_end),
    )


def _update_source(
    source: Source, run: BackupRun, report: SourceReport, next_backups: NextBackups, *, now: datetime
) -> None:
    source.success = run.success
    if run.success:
        source.quarantined = bool(report.findings)
        source.findings = _reasons(report.findings)
        source.failure_count = 0
        source.failure_reason = ""
        _note_incomplete(source, run, now=now)
        is_fallback = run.strategy == StrategyChoices.FULL and run.strategy_reason != ""
        source.fallback_count = source.fallback_count + 1 if is_fallback else 0
        source.fallback_reason = run.strategy_reason if is_fallback else ""
        source.date_last_backed_up = now
        source.date_next_backup = source.date_expected = next_backups.of(source)
    else:
        source.failure_count += 1
        source.failure_reason = first_line(run.summary)
        source.date_next_backup = now + retry_pause(source.failure_count)
        _log.warning(
            "backup of source %s of machine %s failed %d times in a row; next try at %s",
            source.name,
            source.machine,
            source.failure_count,
            source.date_next_backup.isoformat(timespec="minutes"),
        )


def _note_incomplete(source: Source, run: BackupRun, *, now: datetime) -> None:
    is_incomplete = bool(run.missing_files or run.stale_files)
    since = source.date_incomplete_since
    # A date from a clock that was ahead must not hide the true duration.
    source.date_incomplete_since = (min(since, now) if since else now) if is_incomplete else None
    source.missing_files, source.stale_files = run.missing_files, run.stale_files
    source.incomplete_reasons = run.warnings[:_REASONS_OF_A_SOURCE] if is_incomplete else []


def _rarely_changed(source: Source) -> list[object]:
    return [getattr(source, name) for name in _RARELY_CHANGED]


def record(machine: Machine, storage: Storage, reports: Mapping[str, SourceReport], *, now: datetime) -> None:
    """Write a run for each report and update its source, in one transaction.

    Raises ApiNotFound for a source that the machine does not have. Raises MalformedMessage.
    """
    if len(reports) > SOURCES_LIMIT:
        raise MalformedMessage(f"machine.sources: has more than {SOURCES_LIMIT} sources")
    succeeded = [name for name, report in reports.items() if report.success]
    next_backups = NextBackups(machine.sources.filter(name__in=succeeded) if succeeded else (), now=now)
    with transaction.atomic():
        _record(machine, storage, reports, next_backups, now=now)


def _record(
    machine: Machine, storage: Storage, reports: Mapping[str, SourceReport], next_backups: NextBackups, *, now: datetime
) -> None:
    # Rows are always locked in the order of their names, to avoid deadlocks.
    rows = machine.sources.filter(name__in=list(reports)).select_for_update(no_key=True)
    sources = {source.name: source for source in rows}
    unknown = [name for name in reports if name not in sources]
    if unknown:
        raise ApiNotFound(f"machine.sources: the machine has no source {unknown[0][:200]!r}")
    errors = MessageErrors()
    runs = [_run(sources[name], storage, report, errors, now=now) for name, report in reports.items()]
    errors.raise_if_any()
    newly_quarantined = [
        log.NewEntry(
            "backup.quarantined", source, new={"snapshot": report.snapshot or "", "findings": list(report.findings)}
        )
        for name, report in reports.items()
        if report.success and report.findings and not (source := sources[name]).quarantined
    ]
    before = {source.pk: _rarely_changed(source) for source in sources.values()}
    for run, report in zip(runs, reports.values(), strict=True):
        _update_source(run.source, run, report, next_backups, now=now)
    # The storage's limit does not apply. In a fleet under attack, each entry must be written.
    log.record(log.actor_of(storage), newly_quarantined, now=now)
    BackupRun.objects.bulk_create(runs)
    # These columns nearly never change.
    has_changed = any(_rarely_changed(source) != before[source.pk] for source in sources.values())
    many_rows.save_columns(list(sources.values()), (*_STATE, *(_RARELY_CHANGED if has_changed else ())))


_BATCH = 5000


def delete_old(*, older_than_days: int, now: datetime) -> int:
    """Delete old runs and return their number.

    It deletes in batches, so that checkins never wait long for the database.
    """
    old = BackupRun.objects.filter(date__lt=now - timedelta(days=older_than_days)).order_by("date")
    deleted = 0
    while keys := list(old.values_list("pk", flat=True)[:_BATCH]):
        deleted += BackupRun.objects.filter(pk__in=keys).delete()[0]
    return deleted
