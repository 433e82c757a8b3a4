"""Retention of one source: ``policy.retention`` decides, and this module moves snapshots to the trash."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from turku.errors import InvalidValue
from turku.policy import floor, retention
from turku.policy.retention import Retention, Upcoming
from turku.protocol.messages import SourceOrder
from turku.storage.config.model import RetentionConfig, StorageConfig, StorageState
from turku.storage.disk import deletion, history, snapshot_notes, trash
from turku.storage.disk.history import StoredSnapshot
from turku.storage.disk.retention_rules import SourceRules
from turku.storage.disk.snapshot_notes import Notes
from turku.storage.disk.source_directory import SourceDirectory

LONGEST_PERIOD = timedelta(days=31)
"""The longest period that is believed, whatever a coordinator says. No schedule has one longer than a month."""
RESTORED = "brought back from the trash"
NOT_READABLE = "its notes cannot be read"
NEWEST = "newest snapshot"
RULES_UNKNOWN = "no rules known before the next backup"
QUARANTINE = "a snapshot is in quarantine"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetainedSnapshot:
    """A snapshot with the reasons for which it stays. One without a reason goes."""

    name: str
    moment: datetime | None
    reasons: tuple[str, ...]
    until: datetime | None
    """The moment from which no reason holds, if good backups go on as scheduled. None where no moment is known."""


def effective_rules(order: SourceOrder | SourceRules, configuration: RetentionConfig) -> Retention:
    """Return the union of the machine's rules, the operator's floor at the coordinator, and this storage's own floor.

    No machine and no coordinator can lower the storage's own floor (threats C4). Raises InvalidValue for rules that are
    not understood.
    """
    return floor.effective(order.retention, order.retention_floor, configuration.retention_floor)


def period(order: SourceOrder | SourceRules, configuration: RetentionConfig) -> timedelta:
    """Return the period of the schedule that a snapshot made now belongs to.

    A coordinator of the existing system reports no period. The storage's minimum then counts.
    """
    seconds = max(order.period_seconds or 0.0, configuration.minimum_period_seconds)
    return min(timedelta(seconds=min(seconds, LONGEST_PERIOD.total_seconds())), LONGEST_PERIOD)


def apply(
    place: SourceDirectory,
    order: SourceOrder | SourceRules,
    configuration: StorageConfig,
    *,
    now: datetime,
    newest_name: str,
) -> tuple[str, ...]:
    """Remove from history what the rules do not keep, and return the names of the removed snapshots.

    The caller holds the source's lock, and no snapshot is in quarantine. ``newest_name`` is the snapshot made last. It
    stays even if the clock was wrong before. Rules that are not understood remove nothing.
    """
    try:
        rules = effective_rules(order, configuration.retention)
    except InvalidValue as error:
        _LOG.warning("%s: retention %r: %s. No snapshot is removed.", place.source, order.retention, error)
        return ()
    stored = history.stored_snapshots(place, configuration.state.timezone)
    decisions = _decide(place, stored, rules, configuration.state, now=now, upcoming=None)
    removed = [each.name for each in decisions if not each.reasons and each.name != newest_name]
    remove(place, removed, configuration.retention, now=now)
    return tuple(removed)


def remove(place: SourceDirectory, removed: Collection[str], configuration: RetentionConfig, *, now: datetime) -> None:
    """Move the snapshots to the trash, or mark them for deletion where there is none. The caller holds the lock."""
    for name in removed:
        if configuration.trash_days:
            trash.put(place, name, now=now)
        else:
            deletion.mark(place, name)
    if removed:
        _LOG.info("%s: retention removes %s", place.source, ", ".join(removed))


def kept_of_former_machine(place: SourceDirectory, configuration: StorageConfig, *, now: datetime) -> frozenset[str]:
    """Return the snapshots of a machine that is not backed up here any more, and which the storage keeps by itself.

    They are those of its floor, those that are held, those without a date or with one in the future, and the newest one
    unless ``accept_removals`` lets it go. Without a trash, all stay. Raises InvalidValue.
    """
    stored = history.stored_snapshots(place, configuration.state.timezone)
    if not configuration.retention.trash_days:
        return frozenset(each.name for each in stored)
    floor_rules = configuration.retention.retention_floor
    rules = retention.parse(floor_rules) if floor_rules else Retention(())
    ignored = {retention.NO_RULE_KEEPS_ANY, retention.NEWEST_GOOD}
    kept = {
        each.name
        for each in _decide(place, stored, rules, configuration.state, now=now, upcoming=None)
        if set(each.reasons) - ignored
    }
    if not configuration.retention.accept_removals:
        kept |= {each.name for each in history.latest_last(stored, now=now)[-1:]}
    return frozenset(kept)


def review(
    place: SourceDirectory, order: SourceRules | None, configuration: StorageConfig, *, now: datetime
) -> tuple[RetainedSnapshot, ...]:
    """Return each snapshot, oldest first, with the reasons for which it stays now.

    ``order`` has the rules of the last run, or is None where none are known. The storage's floor then gives reasons as
    well, and all other snapshots stay until a run tells the rules. Raises InvalidValue for rules that are not
    understood, so that nothing is removed by them.
    """
    stored = history.stored_snapshots(place, configuration.state.timezone)
    newest = history.latest_last(stored, now=now)[-1].name if stored else ""
    waits = bool(history.awaiting_review(place, configuration.state.timezone))

    def with_reasons_of_the_storage(each: RetainedSnapshot) -> RetainedSnapshot:
        reasons = each.reasons
        if not reasons:
            reasons = (NEWEST,) if each.name == newest else (RULES_UNKNOWN,) if order is None else ()
        if waits:
            reasons = (*reasons, QUARANTINE)
        return replace(each, reasons=reasons, until=None if waits or order is None else each.until)

    return tuple(map(with_reasons_of_the_storage, _by_known_rules(place, stored, order, configuration, now=now)))


def _by_known_rules(
    place: SourceDirectory,
    stored: Sequence[StoredSnapshot],
    order: SourceRules | None,
    configuration: StorageConfig,
    *,
    now: datetime,
) -> list[RetainedSnapshot]:
    floor = configuration.retention.retention_floor
    if order is not None:
        rules = effective_rules(order, configuration.retention)
    elif floor:
        rules = retention.parse(floor)
    else:
        return [RetainedSnapshot(each.name, each.moment, (), None) for each in stored]
    upcoming = _upcoming(stored, order, configuration.retention, now)
    return _decide(place, stored, rules, configuration.state, now=now, upcoming=upcoming)


def _upcoming(
    stored: Sequence[StoredSnapshot], order: SourceRules | None, configuration: RetentionConfig, now: datetime
) -> Upcoming | None:
    """Return the expected snapshots, or None where the schedule's period is not known."""
    if order is None:
        return None
    length = period(order, configuration)
    made = [each.moment for each in stored if each.moment is not None and each.moment <= now]
    if not length or not made:
        return None
    return Upcoming(max(max(made) + length, now), length)


def _decide(
    place: SourceDirectory,
    stored: Sequence[StoredSnapshot],
    rules: Retention,
    configuration: StorageState,
    *,
    now: datetime,
    upcoming: Upcoming | None,
) -> list[RetainedSnapshot]:
    noted = {each.name: snapshot_notes.read(place, each.name) for each in stored}
    decisions = retention.decide(
        [_policy_snapshot(each, noted[each.name], now) for each in stored],
        rules,
        now=now,
        zone=configuration.timezone,
        upcoming=upcoming,
    )
    return [
        _retained(each, stored_one, noted[stored_one.name]) for each, stored_one in zip(decisions, stored, strict=True)
    ]


def _retained(decision: retention.Decision, stored: StoredSnapshot, noted: Notes) -> RetainedSnapshot:
    reasons, until = decision.reasons, decision.until
    if retention.HELD in reasons and not stored.is_held:
        # Policy knows one word for all that holds a snapshot.
        reason = RESTORED if noted.is_readable else NOT_READABLE
        reasons = tuple(reason if each == retention.HELD else each for each in reasons)
        until = noted.held_until if reasons == (RESTORED,) else None
    return RetainedSnapshot(stored.name, stored.moment, reasons, until)


def _policy_snapshot(stored: StoredSnapshot, noted: Notes, now: datetime) -> retention.Snapshot:
    return retention.Snapshot(
        name=stored.name,
        moment=stored.moment,
        is_good=noted.is_good,
        is_held=stored.is_held or not noted.is_readable or (noted.held_until is not None and now < noted.held_until),
        period=noted.period,
    )
