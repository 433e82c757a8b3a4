"""Retention after a successful backup: ``policy.retention`` decides, and this module moves snapshots to the trash."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from turku.errors import InvalidValue
from turku.policy import retention
from turku.policy.retention import Retention
from turku.protocol.messages import SourceOrder
from turku.storage.config.model import StorageConfig
from turku.storage.disk import deletion, history, snapshot_notes, trash
from turku.storage.disk.snapshot_notes import Notes
from turku.storage.disk.source_directory import SourceDirectory

LONGEST_PERIOD = timedelta(days=31)
"""The longest period that is believed, whatever a coordinator says. No schedule has one longer than a month."""
_LOG = logging.getLogger(__name__)


def effective_rules(order: SourceOrder, configuration: StorageConfig) -> Retention:
    """Return the union of the machine's rules, the operator's floor at the coordinator, and this storage's own floor.

    No machine and no coordinator can lower the storage's own floor (threats C4). Raises InvalidValue for rules that are
    not understood.
    """
    rules = retention.parse(order.retention)
    for floor in (order.retention_floor, configuration.retention.retention_floor):
        if floor:
            rules = rules.union(retention.parse(floor))
    return rules


def period(order: SourceOrder, configuration: StorageConfig) -> timedelta:
    """Return the period of the schedule that a snapshot made now belongs to.

    A coordinator of the existing system reports no period. The storage's minimum then counts.
    """
    seconds = max(order.period_seconds or 0.0, configuration.retention.minimum_period_seconds)
    return min(timedelta(seconds=min(seconds, LONGEST_PERIOD.total_seconds())), LONGEST_PERIOD)


def apply(
    place: SourceDirectory, order: SourceOrder, configuration: StorageConfig, *, now: datetime, newest_name: str
) -> tuple[str, ...]:
    """Remove from history what the rules do not keep, and return the names of the removed snapshots.

    ``newest_name`` is the snapshot just made. It stays even if the clock was wrong before. Rules that are not
    understood remove nothing.
    """
    try:
        rules = effective_rules(order, configuration)
    except InvalidValue as error:
        _LOG.warning("%s: retention %r: %s. No snapshot is removed.", place.source, order.retention, error)
        return ()
    stored = history.stored_snapshots(place, configuration.state.timezone)
    noted = {each.name: snapshot_notes.read(place, each.name) for each in stored}
    decisions = retention.decide(
        [_policy_snapshot(each, noted[each.name], now) for each in stored],
        rules,
        now=now,
        zone=configuration.state.timezone,
    )
    removed = [
        decision.snapshot.name for decision in decisions if not decision.kept and decision.snapshot.name != newest_name
    ]
    for name in removed:
        if configuration.retention.trash_days:
            trash.put(place, name, now=now)
        else:
            deletion.mark(place, name)
    if removed:
        _LOG.info("%s: retention removes %s", place.source, ", ".join(removed))
    return tuple(removed)


def _policy_snapshot(stored: history.StoredSnapshot, noted: Notes, now: datetime) -> retention.Snapshot:
    return retention.Snapshot(
        name=stored.name,
        moment=stored.moment,
        is_good=noted.is_good,
        is_held=stored.is_held or not noted.is_readable or (noted.held_until is not None and now < noted.held_until),
        period=noted.period,
    )
