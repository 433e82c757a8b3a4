"""Treatment of a damaged file: it is repaired from another copy, fetched by the next backup, or lost.

Other copies are the same version in another snapshot, any other path or version of the source with that content, and
the same path in the trash.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path

from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.filesystem.directory_tree import DirectoryTree
from turku.errors import LockHeld
from turku.protocol.integrity_messages import DamageKind, DamageState
from turku.storage.catalog import Catalog, CatalogEntry
from turku.storage.catalog.scan import attributes_of
from turku.storage.disk import history, trash
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.disk.source_lookup import locked
from turku.storage.fs import tree as fs
from turku.storage.integrity import replacement
from turku.storage.integrity.damage import SNAPSHOTS_KEPT, DamageRecord
from turku.storage.integrity.replacement import NotRepaired, StoredName

LOCK_WAIT_SECONDS = 10.0
"""The time to wait for a running backup of the source."""
_LOCK_PAUSE_SECONDS = 0.5
_DONORS_LIMIT = 1000
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class DamagedVersion:
    """One stored file that differs from the catalog."""

    path: bytes
    kind: DamageKind
    names: tuple[StoredName, ...]
    """Its names in history, in distinct trees."""
    snapshots: tuple[str, ...]
    """All snapshots that have it, oldest first."""
    checksum: bytes | None
    size: int
    mtime_ns: int
    attributes: bytes | None = None
    """The digest of its attributes in the catalog."""

    @property
    def is_only_of_path(self) -> bool:
        """Return True if a donor must be the same path, as owner, mode and attributes come from it."""
        return self.kind in ("missing", "attributes")

    def damage(self, state: DamageState) -> DamageRecord:
        """Return the record of this damage with its new state."""
        return DamageRecord(
            path=os.fsdecode(self.path),
            kind=self.kind,
            state=state,
            snapshots=self.snapshots[-SNAPSHOTS_KEPT:],
            snapshot_count=len(self.snapshots),
            checksum="" if self.checksum is None else self.checksum.hex(),
            size=self.size,
            mtime_ns=self.mtime_ns,
        )


def repair(
    place: SourceDirectory,
    broken: DamagedVersion,
    known: Catalog,
    *,
    donors: Sequence[StoredName],
    zone: tzinfo,
    clock: Clock = SYSTEM_CLOCK,
) -> DamageRecord:
    """Repair the damage if possible, and return its record.

    ``donors`` are copies that were just read and found good.
    """
    try:
        with _waiting_for_lock(place, clock):
            state = _repair(place, broken, known, donors, history.base(place, zone, now=clock.now()))
    except LockHeld:
        _LOG.warning("%s: a backup is running, so the next scrub repairs the damage", place.source)
        state = "next_backup"
    if state == "lost" and broken.kind == "unreadable":
        # A later read may still succeed.
        state = "alarm"
    return broken.damage(state)


def _repair(
    place: SourceDirectory,
    broken: DamagedVersion,
    known: Catalog,
    donors: Sequence[StoredName],
    base: history.StoredSnapshot | None,
) -> DamageState:
    left = list(broken.names)
    if broken.checksum is not None:
        left += _other_links(place, broken, known)
        for donor in _donors(place, broken, known, donors):
            try:
                repaired = replacement.replace(
                    place,
                    left,
                    donor=donor,
                    expected=broken.checksum,
                    mtime_ns=broken.mtime_ns,
                    is_missing=broken.kind == "missing",
                    takes_attributes=broken.kind == "attributes",
                )
            except NotRepaired as error:
                _LOG.info("%s: not repaired from %s: %s", os.fsdecode(broken.path), donor.tree.name, error.message)
                continue
            left = [name for name in left if name not in repaired]
            if not left:
                _LOG.warning(
                    "%s: repaired %s from %s of %s",
                    place.source,
                    os.fsdecode(broken.path),
                    os.fsdecode(donor.path),
                    donor.tree.name,
                )
                return "repaired"
    return _left_to_next_backup(left, base)


def _left_to_next_backup(left: Sequence[StoredName], base: history.StoredSnapshot | None) -> DamageState:
    """Return the state of files without another copy. The next backup fetches those that are in its base.

    The files themselves are not changed, as other snapshots may share them (``damage.to_fetch``).
    """
    return "next_backup" if any(base is not None and name.tree == base.path for name in left) else "lost"


def _donors(
    place: SourceDirectory, broken: DamagedVersion, known: Catalog, donors: Sequence[StoredName]
) -> Iterator[StoredName]:
    """Yield copies that may be good, those just read first. Each is checked before it is used."""
    tried = set(broken.names)
    found = (*donors, *_of_catalog(place, broken, known), *_of_trash(place, [broken.path]))
    for donor in found[:_DONORS_LIMIT]:
        if donor in tried or (broken.is_only_of_path and donor.path != broken.path):
            continue
        tried.add(donor)
        if broken.kind == "attributes" and _attributes(donor) != broken.attributes:
            continue
        if (status := _status(donor)) is not None and status.st_size == broken.size:
            yield donor


def _of_catalog(place: SourceDirectory, broken: DamagedVersion, known: Catalog) -> Iterator[StoredName]:
    if broken.checksum is None:
        return
    # Versions of the path itself first, including those without a known checksum, such as a later backup's.
    of_path = [entry for entry in reversed(known.history(broken.path)) if entry.size == broken.size]
    for entry in (*of_path, *known.with_checksum(broken.checksum)):
        for tree in _trees(place, entry, known):
            yield StoredName(tree, entry.path)


def _of_trash(place: SourceDirectory, paths: Sequence[bytes]) -> Iterator[StoredName]:
    for trashed in reversed(trash.trashed_snapshots(place)):
        # A snapshot of an unchanged source is a link, whose tree is in history or in another entry of the trash.
        if fs.is_directory(trashed.path):
            for path in paths:
                yield StoredName(trashed.path, path)


def _trees(place: SourceDirectory, entry: CatalogEntry, known: Catalog) -> Iterator[Path]:
    """Yield the distinct trees that have the version, newest first."""
    names = [each.name for each in known.snapshots()]
    seen: set[Path] = set()
    for name in reversed(names[names.index(entry.first) : names.index(entry.last) + 1]):
        tree = place.tree(name)
        if tree not in seen:
            seen.add(tree)
            yield tree


def _other_links(place: SourceDirectory, broken: DamagedVersion, known: Catalog) -> list[StoredName]:
    """Return further names of the damaged file: other paths that are hard links to it.

    The catalog must say of each, in that very snapshot, that it has this content. The trash has no such record, so
    names there are left as they are.
    """
    status = _status(broken.names[0])
    if status is None or broken.checksum is None or status.st_nlink <= len(broken.names):
        return []
    candidates = [
        StoredName(tree, entry.path)
        for entry in known.with_checksum(broken.checksum)
        for tree in _trees(place, entry, known)
    ]
    found: list[StoredName] = []
    for name in dict.fromkeys(candidates):
        other = _status(name) if name not in broken.names else None
        if other is not None and (other.st_dev, other.st_ino) == (status.st_dev, status.st_ino):
            found.append(name)
    return found


def _attributes(name: StoredName) -> bytes | None:
    with suppress(OSError), replacement.opened(name) as descriptor:
        return attributes_of(descriptor)
    return None


def _status(name: StoredName) -> os.stat_result | None:
    with suppress(OSError), DirectoryTree(name.tree) as tree:
        return tree.status(name.path)
    return None


@contextmanager
def _waiting_for_lock(place: SourceDirectory, clock: Clock) -> Iterator[None]:
    end = clock.monotonic_seconds() + LOCK_WAIT_SECONDS
    while True:
        try:
            with locked(place):
                yield
                return
        except LockHeld:
            if clock.monotonic_seconds() >= end:
                raise
            clock.sleep(_LOCK_PAUSE_SECONDS)
