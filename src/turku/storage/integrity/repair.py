"""What is done about a damaged file: it is healed from another copy, or brought by the next backup, or lost.

Another copy is: the same version in another snapshot, any other path or version of the source with that content, the
same path in the trash.
"""

from __future__ import annotations

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
"""For how long a backup of the source that is running is waited for."""
_LOCK_PAUSE_SECONDS = 0.5
_DONORS_LIMIT = 1000
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class DamagedVersion:
    """One stored file that is not what the catalog says of it."""

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
    """As the catalog has them."""

    @property
    def is_only_of_path(self) -> bool:
        """Return True when owner, mode and attributes are those of the same path elsewhere."""
        return self.kind in ("missing", "attributes")

    def damage(self, state: DamageState) -> DamageRecord:
        """Return the damage that it is, with what became of it."""
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
    """The damage, with what became of it. ``donors`` are copies that were just read and found good."""
    try:
        with _waiting_for_lock(place, clock):
            state = _repair(place, broken, known, donors, history.base(place, zone, now=clock.now()))
    except LockHeld:
        _LOG.warning("%s: a backup is running; what is damaged is seen to by the next verification", place.source)
        state = "next_backup"
    if state == "lost" and broken.kind == "unreadable":
        # The disk may give it yet.
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
                healed = replacement.replace(
                    place,
                    left,
                    donor=donor,
                    expected=broken.checksum,
                    mtime_ns=broken.mtime_ns,
                    is_missing=broken.kind == "missing",
                    takes_attributes=broken.kind == "attributes",
                )
            except NotRepaired as error:
                _LOG.info("%s: not healed from %s: %s", os.fsdecode(broken.path), donor.tree.name, error.message)
                continue
            left = [name for name in left if name not in healed]
            if not left:
                _LOG.warning(
                    "%s: %s is healed, from %s of %s",
                    place.source,
                    os.fsdecode(broken.path),
                    os.fsdecode(donor.path),
                    donor.tree.name,
                )
                return "healed"
    return _left_to_next_backup(left, base)


def _left_to_next_backup(left: Sequence[StoredName], base: history.StoredSnapshot | None) -> DamageState:
    """Return what becomes of files without another copy: the next backup fetches those that it builds upon.

    Nothing is changed for it: the files may be shared with other snapshots (``damage.to_fetch``).
    """
    return "next_backup" if any(base is not None and name.tree == base.path for name in left) else "lost"


def _donors(
    place: SourceDirectory, broken: DamagedVersion, known: Catalog, donors: Sequence[StoredName]
) -> Iterator[StoredName]:
    """Copies that may be good, those that were read just now first; each is read before it is used."""
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
    # Versions of the path itself first, those included whose checksum nobody knows yet, as a later backup's.
    of_path = [entry for entry in reversed(known.history(broken.path)) if entry.size == broken.size]
    for entry in (*of_path, *known.with_checksum(broken.checksum)):
        for tree in _trees(place, entry, known):
            yield StoredName(tree, entry.path)


def _of_trash(place: SourceDirectory, paths: Sequence[bytes]) -> Iterator[StoredName]:
    for trashed in reversed(trash.trashed_snapshots(place)):
        # A snapshot of an unchanged source is a link: its tree is history's, or another one's in the trash.
        if fs.is_directory(trashed.path):
            for path in paths:
                yield StoredName(trashed.path, path)


def _trees(place: SourceDirectory, entry: CatalogEntry, known: Catalog) -> Iterator[Path]:
    """The distinct trees that have the version, newest first."""
    names = [each.name for each in known.snapshots()]
    seen: set[Path] = set()
    for name in reversed(names[names.index(entry.first) : names.index(entry.last) + 1]):
        tree = place.tree(name)
        if tree not in seen:
            seen.add(tree)
            yield tree


def _other_links(place: SourceDirectory, broken: DamagedVersion, known: Catalog) -> list[StoredName]:
    """Return further names of the damaged file: other paths that are hard links of it.

    Each is one of which the catalog says, in that very snapshot, that this content belongs there. The trash has no such
    record: what shares the file there is left as it is.
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
