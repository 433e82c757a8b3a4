"""The snapshots of a source that are on disk, those made by an existing storage included (contract, section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path

from turku.policy import names, suspicion
from turku.policy.suspicion import Figures
from turku.storage.fs import tree as fs
from turku.storage.snapshots import notes
from turku.storage.snapshots.notes import Judgement
from turku.storage.snapshots.place import SourcePlace


@dataclass(frozen=True)
class StoredSnapshot:
    """A snapshot that is whole; what is being made or removed never shows."""

    name: str
    path: Path
    """The directory with its files; that of another snapshot, where the source had not changed (snapshots/links.py)."""
    moment: datetime | None
    """When it was made, by its name; None when the name has none of the known forms."""
    is_held: bool
    """Whether its name says that it is never to be pruned."""


def stored_snapshots(place: SourcePlace, zone: tzinfo) -> tuple[StoredSnapshot, ...]:
    """The snapshots, oldest first; those whose names give no moment come before them. ``zone`` is the names'."""
    found = []
    for entry in fs.names(place.snapshots_dir):
        if entry.startswith(".") or not (fs.is_directory(place.snapshot(entry)) or place.link_target(entry)):
            continue
        tree = place.tree(entry)
        if not fs.is_directory(tree):
            continue
        name = names.parse_snapshot_name(entry, source=place.source, zone=zone)
        found.append(StoredSnapshot(name=entry, path=tree, moment=name.moment, is_held=name.is_held))
    return tuple(sorted(found, key=_age_order))


def _age_order(snapshot: StoredSnapshot) -> tuple[float, str]:
    return (float("-inf") if snapshot.moment is None else snapshot.moment.timestamp(), snapshot.name)


def newest(place: SourcePlace, zone: tzinfo) -> StoredSnapshot | None:
    """The snapshot that is most like the source now; None before the first one."""
    snapshots = stored_snapshots(place, zone)
    return snapshots[-1] if snapshots else None


def base(place: SourcePlace, zone: tzinfo) -> StoredSnapshot | None:
    """The snapshot to build the next one upon: the newest that nobody judged bad; the newest where all are."""
    snapshots = stored_snapshots(place, zone)
    for snapshot in reversed(snapshots):
        if notes.read(place, snapshot.name).judgement is not Judgement.BAD:
            return snapshot
    return snapshots[-1] if snapshots else None


def unjudged(place: SourcePlace, zone: tzinfo) -> tuple[StoredSnapshot, ...]:
    """The suspicious snapshots that nobody has judged yet; while there is one, nothing of the source is pruned."""
    return tuple(each for each in stored_snapshots(place, zone) if notes.read(place, each.name).is_unjudged)


def usual(place: SourcePlace, zone: tzinfo) -> tuple[Figures, ...]:
    """The figures of the newest good backups, those that were found suspicious and judged clean included."""
    found: list[Figures] = []
    for snapshot in reversed(stored_snapshots(place, zone)):
        noted = notes.read(place, snapshot.name)
        if noted.is_good and noted.figures is not None:
            found.append(noted.figures)
        if len(found) == suspicion.FIGURES_REMEMBERED:
            break
    return tuple(found)
