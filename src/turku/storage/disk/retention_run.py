"""Retention, after each success: which snapshots go is policy's to say; they go to the trash."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from turku.errors import InvalidValue
from turku.policy import retention
from turku.policy.retention import Retention
from turku.protocol.messages import SourceOrder
from turku.storage.config.configuration import StorageConfig
from turku.storage.disk import history, snapshot_notes, trash
from turku.storage.disk.snapshot_notes import Notes
from turku.storage.snapshots import SnapshotMode

LONGEST_PERIOD = timedelta(days=31)
"""A schedule's longest period is a month; whatever a coordinator says."""
_LOG = logging.getLogger(__name__)


def effective_rules(order: SourceOrder, configuration: StorageConfig) -> Retention:
    """What is kept: what the machine's rules, the operator's floor at the coordinator, or this storage's own keep.

    The last one no machine and no coordinator can lower (threats C4). Raises InvalidValue for rules not understood.
    """
    rules = retention.parse(order.retention)
    for floor in (order.retention_floor, configuration.retention_floor):
        if floor:
            rules = rules.union(retention.parse(floor))
    return rules


def period(order: SourceOrder, configuration: StorageConfig) -> timedelta:
    """The schedule's period that a snapshot made now belongs to; an existing coordinator tells none."""
    seconds = max(order.period_seconds or 0.0, configuration.minimum_period_seconds)
    return min(timedelta(seconds=min(seconds, LONGEST_PERIOD.total_seconds())), LONGEST_PERIOD)


def prune(
    mode: SnapshotMode, order: SourceOrder, configuration: StorageConfig, *, now: datetime, newest_name: str
) -> tuple[str, ...]:
    """The names of the snapshots that left history; rules that are not understood delete nothing.

    ``newest_name`` is the snapshot just made: a clock that had gone wrong before does not make it go.
    """
    place = mode.place
    try:
        rules = effective_rules(order, configuration)
    except InvalidValue as error:
        _LOG.warning("%s: retention %r: %s; no snapshot is deleted", place.source, order.retention, error)
        return ()
    stored = history.stored_snapshots(place, configuration.zone)
    noted = {each.name: snapshot_notes.read(place, each.name) for each in stored}
    decisions = retention.decide(
        [_as_policy_sees_it(each, noted[each.name], now) for each in stored], rules, now=now, zone=configuration.zone
    )
    gone = [
        decision.snapshot.name for decision in decisions if not decision.kept and decision.snapshot.name != newest_name
    ]
    for name in gone:
        if configuration.trash_days:
            trash.put(place, name, now=now)
        else:
            mode.discard(name)
    if gone:
        _LOG.info("%s: retention removes %s", place.source, ", ".join(gone))
    return tuple(gone)


def _as_policy_sees_it(stored: history.StoredSnapshot, noted: Notes, now: datetime) -> retention.Snapshot:
    return retention.Snapshot(
        name=stored.name,
        moment=stored.moment,
        is_good=noted.is_good,
        is_held=stored.is_held or not noted.is_readable or (noted.held_until is not None and now < noted.held_until),
        period=noted.period,
    )
