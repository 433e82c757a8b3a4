"""Reports of storages about damage, verification and drills, written together in a fixed number of queries."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Case, Count, F, Value, When, Window
from django.db.models.functions import RowNumber

from turku.api.audit import log
from turku.api.audit.log import NewEntry
from turku.api.backups.models import SOURCES_LIMIT, Source
from turku.api.database import many_rows
from turku.api.fleet.models import NAME_LENGTH, Machine, Storage
from turku.api.integrity.models import OPEN, RESOLVED, Damage, Drill, IntegrityState
from turku.core.log import one_line
from turku.errors import ApiNotFound, MalformedMessage
from turku.protocol.integrity_messages import DAMAGES_LIMIT, DamagedFile, SourceIntegrity

DAMAGES_KEPT = 1000
DRILLS_KEPT = 100
"""Both limits are for one source. A compromised storage must not fill the database."""
LONGEST_VALIDITY = timedelta(days=400)
_LATEST = datetime(2100, 1, 1, tzinfo=UTC)
_LOGGED_PATHS = 20
_DAMAGE_FIELDS = (
    *("storage", "kind", "state", "checksum", "snapshots", "snapshot_count"),
    *("date_found", "date_changed", "date_acknowledged", "acknowledged_by"),
)


@transaction.atomic
def record(machine: Machine, storage: Storage, reports: Mapping[str, SourceIntegrity], *, now: datetime) -> None:
    """Write the reports about sources of the machine, in one transaction.

    Raises ApiNotFound for a source that the machine does not have. Raises ApiThrottled, MalformedMessage.
    """
    if len(reports) > SOURCES_LIMIT:
        raise MalformedMessage(f"machine.sources: has more than {SOURCES_LIMIT} sources")
    if sum(len(report.damages) for report in reports.values()) > DAMAGES_LIMIT:
        raise MalformedMessage(f"machine.sources: has more than {DAMAGES_LIMIT} damages")
    # Rows are always locked in the order of their names. Concurrent reports must not create the same row twice.
    rows = machine.sources.filter(name__in=list(reports)).order_by("name").select_for_update(no_key=True)
    sources = {source.name: source for source in rows}
    unknown = [name for name in reports if name not in sources]
    if unknown:
        raise ApiNotFound(f"machine.sources: the machine has no source {unknown[0][:200]!r}")
    entries = [
        *_record_damages(storage, sources, reports, now=now),
        *_record_drills(storage, sources, reports, now=now),
    ]
    log.record_of_program(log.actor_of(storage), entries, now=now)


def _digest(damage: DamagedFile) -> str:
    """Return the key of a damage. Several versions of a path can be damaged."""
    return hashlib.sha256(f"{one_line(damage.checksum)}/{one_line(damage.path)}".encode()).hexdigest()


def _record_damages(
    storage: Storage, sources: Mapping[str, Source], reports: Mapping[str, SourceIntegrity], *, now: datetime
) -> list[NewEntry]:
    reported = {
        (sources[name].pk, _digest(damage)): (sources[name], damage)
        for name, report in reports.items()
        for damage in report.damages
    }
    if not reported:
        return []
    keys = {source.pk for source, _damage in reported.values()}
    digests = {digest for _key, digest in reported}
    known = {(row.source_id, row.digest): row for row in Damage.objects.filter(source__in=keys, digest__in=digests)}
    counts = Damage.objects.filter(source__in=keys).order_by().values_list("source").annotate(rows=Count("pk"))
    most = max((count for _key, count in counts), default=0)
    changed: list[Damage] = []
    created: list[Damage] = []
    found: dict[str, list[DamagedFile]] = {}
    repaired: dict[str, list[DamagedFile]] = {}
    for key, (source, damage) in reported.items():
        before = known.get(key)
        row = before or Damage(source=source, path=one_line(damage.path), digest=key[1])
        if before is None or _is_news(before, damage):
            row.date_found, row.date_acknowledged, row.acknowledged_by = now, None, ""
            found.setdefault(source.name, []).append(damage)
        elif row.state not in RESOLVED and damage.state in RESOLVED:
            repaired.setdefault(source.name, []).append(damage)
        row.storage, row.kind, row.state, row.checksum = storage, damage.kind, damage.state, one_line(damage.checksum)
        row.snapshots, row.snapshot_count = [one_line(name) for name in damage.snapshots], damage.snapshot_count
        row.date_changed = now
        (changed if before is not None else created).append(row)
    many_rows.save_columns(changed, _DAMAGE_FIELDS)
    Damage.objects.bulk_create(created)
    if most + len(created) > DAMAGES_KEPT:
        _drop_surplus(Damage, keys, DAMAGES_KEPT, ("-date_changed", "-pk"))
    by_name = {source.name: source for source, _damage in reported.values()}
    return [
        *(NewEntry("damage.found", by_name[name], new=_shown(damages)) for name, damages in found.items()),
        *(NewEntry("damage.repaired", by_name[name], new=_shown(damages)) for name, damages in repaired.items()),
    ]


def _is_news(row: Damage, reported: DamagedFile) -> bool:
    """Return True if the reported damage differs from the known one, so that an acknowledgement does not cover it."""
    is_over_again = row.state in RESOLVED and reported.state not in RESOLVED
    return is_over_again or row.kind != reported.kind


def _shown(damages: Sequence[DamagedFile]) -> dict[str, object]:
    return {
        "files": len(damages),
        "first": [
            {"path": one_line(each.path), "kind": each.kind, "state": each.state, "snapshots": each.snapshots}
            for each in damages[:_LOGGED_PATHS]
        ],
    }


def _record_drills(
    storage: Storage, sources: Mapping[str, Source], reports: Mapping[str, SourceIntegrity], *, now: datetime
) -> list[NewEntry]:
    reported = {sources[name]: report for name, report in reports.items() if report.drill or report.verified}
    if not reported:
        return []
    states = {row.source_id: row for row in IntegrityState.objects.filter(source__in=list(reported))}
    drills: list[Drill] = []
    entries: list[NewEntry] = []
    rows: list[IntegrityState] = []
    for source, report in reported.items():
        row = states.get(source.pk) or IntegrityState(source=source)
        rows.append(row)
        if (verified := report.verified) is not None:
            row.date_verified = min(_moment(verified.time), now)
            row.verified_files, row.verified_bytes = verified.files, verified.size_bytes
            if verified.time_oldest_check is not None:
                row.date_oldest_check = min(_moment(verified.time_oldest_check), now)
        if (drill := report.drill) is not None:
            if row.drill_succeeded is not False and not drill.success:
                entries.append(NewEntry("drill.failed", source, new={"snapshot": drill.snapshot, "why": drill.summary}))
            row.drill_succeeded = drill.success
            if drill.success:
                row.date_drilled = now
                row.date_proven_until = now + min(timedelta(seconds=drill.valid_seconds), LONGEST_VALIDITY)
            else:
                # A failed drill ends the proof of an earlier one.
                row.date_proven_until = now
            drills.append(
                Drill(
                    source=source,
                    storage=storage,
                    date=now,
                    success=drill.success,
                    snapshot=one_line(drill.snapshot)[:NAME_LENGTH],
                    files=drill.files,
                    size_bytes=drill.size_bytes,
                    date_begin=_moment(drill.time_begin),
                    date_end=_moment(drill.time_end),
                    summary=drill.summary,
                )
            )
    columns = [field.name for field in IntegrityState._meta.concrete_fields if not field.primary_key]
    IntegrityState.objects.bulk_create(rows, update_conflicts=True, unique_fields=["source"], update_fields=columns)
    Drill.objects.bulk_create(drills)
    if drills:
        _drop_surplus(Drill, {drill.source_id for drill in drills}, DRILLS_KEPT, ("-date", "-pk"))
    return entries


def _moment(unix_seconds: float) -> datetime:
    return min(datetime.fromtimestamp(unix_seconds, UTC), _LATEST)


def _drop_surplus(model: type[Damage] | type[Drill], sources: set[UUID], kept: int, order: Sequence[str]) -> None:
    """Keep the first ``kept`` rows of each source in that order, and delete the others."""
    by = [F(name[1:]).desc(nulls_first=True) if name.startswith("-") else F(name).asc() for name in order]
    if model is Damage:
        # Open damage is kept before all other rows.
        by = [Case(When(OPEN, then=Value(0)), default=Value(1)).asc(), *by]
    ranked = (
        model._default_manager.filter(source__in=sources)
        .order_by()
        .annotate(rank=Window(RowNumber(), partition_by=[F("source")], order_by=by))
    )
    surplus = list(ranked.filter(rank__gt=kept).values_list("pk", flat=True)[:10_000])
    model._default_manager.filter(pk__in=surplus).delete()
