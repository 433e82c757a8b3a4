"""The source message S of the contract, as agents and storages receive it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings

from turku.api.backups import runs
from turku.api.backups.effective_options import OptionResolver
from turku.api.backups.filter_sets import FilterSets
from turku.api.backups.models import Source
from turku.api.fleet.models import Machine, Storage
from turku.api.restores import offers
from turku.errors import InvalidValue
from turku.policy import bandwidth, compression, run_options, source_options
from turku.policy.timing import schedule
from turku.protocol.messages import SourceOrder, SourceReport, StorageAddress


def _bandwidth(source: Source, *, now: datetime) -> tuple[int | None, str | None]:
    """Return the limit now, for storages that know only numbers, and the rule if it depends on the time of day."""
    text = source.other_options.get("bwlimit")
    if not bandwidth.changes(text):
        return source.bwlimit, None
    return bandwidth.parse(text).at(now, ZoneInfo(settings.TIME_ZONE)), text


def _option(source: Source, name: str) -> Any:
    """Return a checked option that has no column, or its default if the value is missing or invalid."""
    option = source_options.OPTIONS[name]
    value = source.other_options.get(name)
    try:
        return option.default if value is None else option.check(value)
    except InvalidValue:
        return option.default


def _order(
    source: Source, storage: StorageAddress, rules: list[str], protections: OptionResolver, *, now: datetime
) -> SourceOrder:
    protection, floor = protections.resolve(source), protections.floor
    limit_now, windows = _bandwidth(source, now=now)
    compress, incomplete = _option(source, "compress"), _option(source, run_options.INCOMPLETE)
    return SourceOrder(
        path=source.path,
        storage=storage,
        retention=protection.retention,
        bwlimit=limit_now,
        filter=rules,
        exclude=source.exclude,
        shared_service=source.shared_service,
        large_rotating_files=source.large_rotating_files,
        large_modifying_files=source.large_modifying_files,
        snapshot_mode=protection.snapshot_mode,
        preserve_hard_links=source.preserve_hard_links,
        retention_floor=floor.retention_floor or None,
        allowed_snapshot_modes=list(floor.allowed_snapshot_modes),
        quota_bytes=floor.quota_bytes,
        period_seconds=_period_seconds(source.frequency),
        bandwidth_windows=windows,
        # Defaults of storages are not sent.
        compress=None if compress == compression.Compression.AUTO else compress,
        not_preserved=sorted(_option(source, "not_preserved")),
        incomplete=None if incomplete == run_options.KEEP else incomplete,
        compare_contents=_option(source, "compare_contents"),
        one_file_system=source.one_file_system,
    )


def _period_seconds(frequency: str) -> float | None:
    try:
        return schedule.parse(frequency).period.total_seconds()
    except InvalidValue:
        return None


@dataclass(frozen=True)
class SourceMessages:
    """The messages by source name, and the quota of the machine in bytes."""

    by_name: dict[str, SourceOrder]
    quota_bytes: int | None


def due(machine: Machine, sources: Sequence[Source], *, now: datetime) -> SourceMessages:
    """Return the messages of due sources.

    A source whose filter names a missing set is recorded as failed. A backup would have other files than its owner
    meant, and the other sources must not wait for it.
    """

    def fail(storage: Storage, source: Source, error: InvalidValue) -> None:
        summary = f"not started: filter: {error.message}"
        runs.record(machine, storage, {source.name: SourceReport(success=False, summary=summary)}, now=now)

    return _orders(machine, sources, fail, now=now)


def restorable(machine: Machine, sources: Sequence[Source], *, now: datetime) -> SourceMessages:
    """Return the messages for restores.

    Rules that cannot be expanded are skipped, because they do not affect history.
    """
    return _orders(machine, sources, lambda _storage, _source, _error: [], now=now)


def _orders(
    machine: Machine,
    sources: Sequence[Source],
    on_error: Callable[[Storage, Source, InvalidValue], list[str] | None],
    *,
    now: datetime,
) -> SourceMessages:
    """Return the messages of the sources.

    ``on_error`` returns the rules to send instead of those that cannot be expanded, or None to skip the source.
    """
    filter_sets = FilterSets()
    protections = OptionResolver(machine, sources, now=now)
    orders: dict[str, SourceOrder] = {}
    storage = machine.storage
    if storage is None:
        return SourceMessages({}, protections.floor.quota_bytes)
    for source in sources:
        rules: list[str] | None
        try:
            rules = filter_sets.expand(source.filter)
        except InvalidValue as error:
            rules = on_error(storage, source, error)
        if rules is not None:
            orders[source.name] = _order(source, offers.storage_address(storage), rules, protections, now=now)
    return SourceMessages(orders, protections.floor.quota_bytes)
