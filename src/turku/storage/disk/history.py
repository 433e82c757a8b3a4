"""The history of a source: its snapshots on disk, including those of an existing storage."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Protocol, TypeVar

from turku.policy import anomaly, names
from turku.policy.anomaly import RunStats
from turku.policy.timing import clock_agreement
from turku.storage.disk import snapshot_notes, snapshot_record
from turku.storage.disk.snapshot_notes import Review
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import tree as fs


@dataclass(frozen=True)
class StoredSnapshot:
    """A complete snapshot. What is being made or deleted never shows."""

    name: str
    path: Path
    """The directory with its files. Where the source had not changed, it is another snapshot's (``snapshot_links``)."""
    moment: datetime | None
    """Its time in UTC, from its record or else from its name, or None if neither tells."""
    is_held: bool
    """True if its name says that retention never removes it."""
    was_found_in_future: bool = False
    """True if a backup found its date in the future (``Notes.found_in_future``)."""

    def is_date_in_doubt(self, now: datetime) -> bool:
        """Return True if the date is in the future, or was when a later backup was made: a clock was wrong."""
        return self.was_found_in_future or clock_agreement.is_ahead(self.moment, now=now)


def stored_snapshots(place: SourceDirectory, zone: tzinfo) -> tuple[StoredSnapshot, ...]:
    """Return the snapshots of the source, oldest first. ``zone`` is the time zone of their names.

    The record's time counts before the name's, as names of the hour that a clock shows twice are ambiguous. Snapshots
    whose date is unknown, or was found in the future, come first.
    """
    found = []
    for entry in fs.names(place.snapshots_dir):
        if entry.startswith(".") or not (fs.is_directory(place.snapshot(entry)) or place.link_target(entry)):
            continue
        tree = place.tree(entry)
        if not fs.is_directory(tree):
            continue
        name = names.parse_snapshot_name(entry, source=place.source, zone=zone)
        recorded = snapshot_record.recorded_date(place, entry)
        moment = recorded.sync_begin or name.moment
        was_found_in_future = moment is not None and recorded.found_in_future is not None
        found.append(StoredSnapshot(entry, tree, moment, name.is_held, was_found_in_future))
    return tuple(sorted(found, key=_age_order))


def _age_order(snapshot: StoredSnapshot) -> tuple[bool, float, str]:
    moment = float("-inf") if snapshot.moment is None else snapshot.moment.timestamp()
    return (snapshot.moment is not None and not snapshot.was_found_in_future, moment, snapshot.name)


class Dated(Protocol):
    """A snapshot as far as its date is concerned."""

    @property
    def name(self) -> str: ...

    @property
    def moment(self) -> datetime | None: ...

    def is_date_in_doubt(self, now: datetime) -> bool: ...


Snapshot = TypeVar("Snapshot", bound=Dated)


def latest_last(snapshots: Iterable[Snapshot], *, now: datetime) -> list[Snapshot]:
    """Return the snapshots with those of doubtful dates first, so that the last one is the latest.

    ``snapshots`` are given oldest first.
    """
    return sorted(snapshots, key=lambda each: not each.is_date_in_doubt(now))


def note_dates_ahead(place: SourceDirectory, zone: tzinfo, *, now: datetime) -> tuple[str, ...]:
    """Record with each snapshot from the future that its date is wrong, and return the names of those snapshots.

    Otherwise they would look newer than later snapshots once their dates have come. The source's lock must be held.
    """
    if not has_name_ahead(place, zone, now=now):
        return ()
    ahead = [each for each in stored_snapshots(place, zone) if clock_agreement.is_ahead(each.moment, now=now)]
    for each in ahead:
        if not each.was_found_in_future:
            snapshot_notes.change(place, each.name, found_in_future=now)
    return tuple(each.name for each in ahead)


def has_name_ahead(place: SourceDirectory, zone: tzinfo, *, now: datetime) -> bool:
    """Return True if a name beside the snapshots contains a time in the future. No record is read."""
    entries = fs.names(place.snapshots_dir)
    found = (names.parse_snapshot_name(entry, source=place.source, zone=zone) for entry in entries)
    return any(clock_agreement.is_ahead(each.moment, now=now) for each in found)


def newest(place: SourceDirectory, zone: tzinfo, *, now: datetime) -> StoredSnapshot | None:
    """Return the snapshot that is most like the source now, or None before the first one."""
    snapshots = latest_last(stored_snapshots(place, zone), now=now)
    return snapshots[-1] if snapshots else None


def base(place: SourceDirectory, zone: tzinfo, *, now: datetime) -> StoredSnapshot | None:
    """Return the snapshot to build the next one upon, or None before the first one.

    It is the newest one that nobody rejected, or the newest one if all were rejected.
    """
    snapshots = latest_last(stored_snapshots(place, zone), now=now)
    for snapshot in reversed(snapshots):
        if snapshot_notes.read(place, snapshot.name).review is not Review.REJECTED:
            return snapshot
    return snapshots[-1] if snapshots else None


def awaiting_review(place: SourceDirectory, zone: tzinfo) -> tuple[StoredSnapshot, ...]:
    """Return the quarantined snapshots that nobody has reviewed. While there is one, retention removes nothing."""
    return tuple(each for each in stored_snapshots(place, zone) if snapshot_notes.read(place, each.name).needs_review)


def baseline(place: SourceDirectory, zone: tzinfo) -> tuple[RunStats, ...]:
    """Return the baseline of the source: the statistics of its newest good backups, including accepted ones."""
    found: list[RunStats] = []
    for snapshot in reversed(stored_snapshots(place, zone)):
        noted = snapshot_notes.read(place, snapshot.name)
        if noted.is_good and noted.stats is not None:
            found.append(noted.stats)
        if len(found) == anomaly.BASELINE_RUNS:
            break
    return tuple(found)
