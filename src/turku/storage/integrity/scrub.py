"""Scrubs: stored files are read again and compared with the catalog, those not checked for the longest time first.

A file that many snapshots share is read once. The content of a version without a checksum is trusted on first sight if
its size and time are those of the catalog. The catalog records the progress version by version, so the next run
continues where one ended.

A file is read several times before it counts as damaged. A read error does not tell what the disk holds: a file that
cannot be read raises an alarm, and is left alone until a later run cannot read it either.
"""

import itertools
import logging
import math
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path

from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.units import count_of
from turku.errors import LockHeld
from turku.protocol.integrity_messages import DamageKind
from turku.storage.catalog import Catalog, CatalogEntry, EntryKind, database, open_catalog
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.disk.source_lookup import locked
from turku.storage.fs import tree as fs
from turku.storage.fs.stored_content import RateLimiter
from turku.storage.integrity import damage, repair, replacement
from turku.storage.integrity.copy_reader import CopyReader
from turku.storage.integrity.damage import DamageRecord
from turku.storage.integrity.file_copies import FileCopies, StoredCopy
from turku.storage.integrity.repair import DamagedVersion

BATCH_ROWS = 500
"""The number of versions that are queried and recorded as checked at once."""
_STATES = ("gone", "repaired", "alarm", "lost", "next_backup")
"""The states in order. The last state of several files with one content counts: a backup of it repairs the others."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScrubShare:
    """The part of a source that is read: all, a percentage of its versions, or what a time allows."""

    percent: float = 100.0
    until_seconds: float | None = None
    """The end on the monotonic clock."""


@dataclass
class ScrubResult:
    """The result of a scrub of one source."""

    place: SourceDirectory
    versions: int = 0
    """The number of versions compared."""
    files: int = 0
    """The number of stored files read."""
    size_bytes: int = 0
    new_checksums: int = 0
    """The number of versions that got their first checksum."""
    seconds: float = 0.0
    is_complete: bool = False
    """True if everything that was to be read was read."""
    oldest_check: datetime | None = None
    """The oldest time of a check among all versions, or None if one was never checked."""
    damages: list[DamageRecord] = field(default_factory=list)
    """The damages found by this run, and the known ones of earlier runs."""

    @property
    def open_damages(self) -> list[DamageRecord]:
        return [each for each in self.damages if each.state not in ("repaired", "gone")]


def verify(
    place: SourceDirectory, *, zone: tzinfo, share: ScrubShare, pace: RateLimiter, clock: Clock = SYSTEM_CLOCK
) -> ScrubResult:
    """Scrub the source, and return the result. Damage is repaired where that is possible.

    Raises CatalogUnusable, and OSError if the volume itself cannot be read.
    """
    with open_catalog(place, zone=zone) as known, FileCopies(known) as copies:
        try:
            return _ScrubRun(known, copies, zone=zone, share=share, pace=pace, clock=clock).run()
        except sqlite3.Error as error:
            raise database.unusable(place, error) from error


def last_run(place: SourceDirectory) -> float:
    """Return the time of the source's last scrub in Unix seconds, or 0 for never."""
    status = fs.status(_run_mark(place))
    return 0.0 if status is None else status.st_mtime


def _run_mark(place: SourceDirectory) -> Path:
    return database.file_of(place).with_suffix(".verified")


class _ScrubRun:
    def __init__(
        self, known: Catalog, copies: FileCopies, *, zone: tzinfo, share: ScrubShare, pace: RateLimiter, clock: Clock
    ) -> None:
        self._place = place = known.place
        self._catalog = known
        self._zone = zone
        self._share = share
        self._pace = pace
        self._clock = clock
        self._made = ScrubResult(place)
        self._copies = copies
        self._reader = CopyReader(place, copies, limiter=pace, clock=clock, is_over=self._is_over)
        self._known = {each.key: each for each in damage.read(place)}
        self._found: dict[tuple[str, str], DamageRecord] = {}
        self._new_checksums: list[tuple[int, bytes]] = []
        """Versions with their new checksums."""
        self._new_attributes: list[tuple[int, bytes]] = []
        """Versions with their new attributes."""

    def run(self) -> ScrubResult:
        made, begin = self._made, self._clock.monotonic_seconds()
        read_before = self._pace.read_bytes
        try:
            with locked(self._place):
                replacement.remove_leftovers(self._place)
        except LockHeld:
            pass
        for known in self._known.values():
            self._check_known(known)
        self._read()
        made.damages = list(self._found.values())
        damage.write(self._place, made.damages)
        fs.write_bytes(_run_mark(self._place), b"")
        made.seconds = self._clock.monotonic_seconds() - begin
        made.files = self._reader.files
        made.size_bytes = self._pace.read_bytes - read_before
        oldest = self._number_of("min")
        made.oldest_check = datetime.fromtimestamp(oldest, UTC) if oldest else None
        return made

    def _check_known(self, known: DamageRecord) -> None:
        """Check a known damage again, and repair it if that is possible by now: a backup may have fetched the file."""
        entries = [
            entry
            for entry in self._catalog.history(known.raw_path)
            if entry.kind is EntryKind.FILE
            and (
                (entry.checksum is not None and entry.checksum.hex() == known.checksum)
                if known.checksum
                else (entry.size, entry.mtime_ns) == (known.size, known.mtime_ns)
            )
        ]
        for entry in entries:
            self._verify(entry)
        if known.key not in self._found:
            self._found[known.key] = replace(known, state="repaired" if entries else "gone", is_reported=False)

    def _read(self) -> None:
        made = self._made
        # Later than all earlier checks, so that two runs within a second are two runs.
        mark = max(int(self._clock.now().timestamp()), self._number_of("max") + 1)
        left = math.ceil(self._number_of("count") * self._share.percent / 100)
        while left > 0:
            entries = [entry for entry in self._catalog.oldest_checked(min(left, BATCH_ROWS)) if entry.checked < mark]
            if not entries:
                break
            checked: list[int] = []
            try:
                for entry in entries:
                    if self._is_over():
                        return
                    self._verify(entry)
                    checked.append(entry.version)
            finally:
                self._write_down(checked, mark)
            left -= len(entries)
        made.is_complete = True

    def _write_down(self, checked: Sequence[int], mark: int) -> None:
        if self._new_checksums:
            self._catalog.set_checksums(self._new_checksums)
            self._new_checksums.clear()
        if self._new_attributes:
            self._catalog.set_attributes(self._new_attributes)
            self._new_attributes.clear()
        self._catalog.set_checked(checked, datetime.fromtimestamp(mark, UTC))

    def _number_of(self, function: str) -> int:
        query = f"SELECT {function}(checked) FROM versions WHERE kind = 0"  # noqa: S608  (one of three words of ours)
        return int(self._catalog.connection.execute(query).fetchone()[0] or 0)

    def _is_over(self) -> bool:
        until = self._share.until_seconds
        return until is not None and self._clock.monotonic_seconds() >= until

    def _verify(self, entry: CatalogEntry) -> None:
        readings = [self._reader.read(entry, copy) for copy in self._copies.copies_of(entry)]
        self._made.versions += 1
        broken = [(each.copy, each.kind) for each in readings if each.kind is not None]
        good = [each.copy for each in readings if each.kind is None]
        if not broken and entry.checksum is None:
            found = {each.checksum for each in readings}
            if len(found) > 1 and None not in found:
                # It is not known which of them is right.
                broken, good = [(copy, "content") for copy in good], []
            elif (checksum_seen := next(iter(found), None)) is not None and len(found) == 1:
                self._new_checksums.append((entry.version, checksum_seen))
                self._made.new_checksums += 1
        if broken:
            self._repair(entry, broken, good)
        else:
            self._verify_attributes(entry, [each.copy for each in readings])

    def _verify_attributes(self, entry: CatalogEntry, copies: Sequence[StoredCopy]) -> None:
        """Compare the attributes of copies whose content is right."""
        files = itertools.chain.from_iterable(map(self._copies.separate_files, copies))
        found = [(file, digest) for file in files if (digest := self._reader.attributes(file)) is not None]
        if entry.attributes is None:
            digests = {digest for _file, digest in found}
            if len(digests) == 1:
                self._new_attributes.append((entry.version, digests.pop()))
            return
        broken: list[tuple[StoredCopy, DamageKind]] = [
            (file, "attributes") for file, digest in found if digest != entry.attributes
        ]
        if broken:
            self._repair(entry, broken, [file for file, digest in found if digest == entry.attributes])

    def _repair(
        self, entry: CatalogEntry, broken: Sequence[tuple[StoredCopy, DamageKind]], good: Sequence[StoredCopy]
    ) -> None:
        for copy, kind in broken:
            found = DamagedVersion(
                path=entry.path,
                kind=kind,
                names=copy.names,
                snapshots=copy.snapshots,
                checksum=entry.checksum,
                size=entry.size,
                mtime_ns=entry.mtime_ns,
                attributes=entry.attributes,
            )
            _LOG.error(
                "%s of %s: %s %s in %s, the newest %s",
                self._place.source,
                self._place.machine_dir.name,
                os.fsdecode(entry.path),
                "cannot be read" if kind == "unreadable" else f"is damaged ({kind})",
                count_of(len(copy.snapshots), "snapshot"),
                copy.snapshots[-1],
            )
            if kind == "unreadable" and not self._was_unreadable(entry):
                self._note(found.damage("alarm"))
                continue
            donors = [each.names[0] for each in good if each.status is not None]
            self._note(repair.repair(self._place, found, self._catalog, donors=donors, zone=self._zone))

    def _was_unreadable(self, entry: CatalogEntry) -> bool:
        """Return True if an earlier run could not read the version either."""
        checksum_text = "" if entry.checksum is None else entry.checksum.hex()
        known = self._known.get((os.fsdecode(entry.path), checksum_text))
        return known is not None and known.kind == "unreadable"

    def _note(self, made: DamageRecord) -> None:
        """Record a damage. One content at one path is one damage, however many files and versions have it."""
        before = self._found.get(made.key)
        if before is not None:
            both = sorted({*before.snapshots, *made.snapshots}, key=self._copies.number.__getitem__)
            made = max(before, made, key=lambda each: _STATES.index(each.state))
            count = max(before.snapshot_count, made.snapshot_count, len(both))
            made = replace(made, snapshots=tuple(both[-damage.SNAPSHOTS_KEPT :]), snapshot_count=count)
        known = self._known.get(made.key)
        is_known = known is not None and replace(made, is_reported=known.is_reported) == known
        self._found[made.key] = known if known is not None and is_known else made
