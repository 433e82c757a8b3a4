"""Reading of stored copies for a scrub: repeated after an error, and only once for each file."""

import errno
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from turku.core.clock import Clock
from turku.protocol.integrity_messages import DamageKind
from turku.storage.catalog import CatalogEntry
from turku.storage.catalog.entry import is_time
from turku.storage.catalog.scan import attributes_of
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs.stored_content import RateLimiter, checksum
from turku.storage.integrity.file_copies import NOT_OF_THE_FILE, FileCopies, StoredCopy

READINGS = 3
"""The number of readings before a file counts as damaged or unreadable."""
_PAUSES_SECONDS = (0.2, 1.0)
"""The pauses before a file with an error is read again. A bus or a controller may recover within them."""
_PAUSED_AT_MOST_SECONDS = 60.0
"""The limit of all pauses in one run. If a whole disk fails, waiting for each of its files helps nobody."""
_READ_BEFORE_LIMIT = 100_000
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """The result of reading a copy: its fault or its checksum. Neither means that nothing can be said of it."""

    copy: StoredCopy
    kind: DamageKind | None = None
    checksum: bytes | None = None


def _identity(copy: StoredCopy) -> tuple[int, int]:
    return (0, 0) if copy.status is None else (copy.status.st_dev, copy.status.st_ino)


class CopyReader:
    """A reader of the stored copies of one source. ``is_over`` ends its pauses."""

    def __init__(
        self,
        place: SourceDirectory,
        copies: FileCopies,
        *,
        limiter: RateLimiter,
        clock: Clock,
        is_over: Callable[[], bool],
    ) -> None:
        self.files = 0
        """The number of files read."""
        self._place = place
        self._copies = copies
        self._limiter = limiter
        self._clock = clock
        self._is_over = is_over
        self._read_before: dict[tuple[int, int], bytes] = {}
        """Checksums by device and inode."""
        self._paused_seconds = 0.0

    def attributes(self, copy: StoredCopy) -> bytes | None:
        """Return the attributes of a copy, or None if they cannot be read."""
        try:
            descriptor = self._copies.open_file(copy.names[0])
        except OSError as error:
            if error.errno in NOT_OF_THE_FILE:
                raise
            return None
        try:
            return attributes_of(descriptor)
        finally:
            os.close(descriptor)

    def read(self, entry: CatalogEntry, copy: StoredCopy) -> Reading:
        """Read a copy, and report a fault only if every reading found one."""
        reading = self._read_once(entry, copy)
        for attempt in range(1, READINGS):
            if reading.kind is None:
                break
            _LOG.info("%s: %s at reading %d. It is read again", os.fsdecode(entry.path), reading.kind, attempt)
            if reading.kind != "content":
                self._pause(_PAUSES_SECONDS[attempt - 1])
            before, copy = reading, self._copies.refreshed(copy)
            self._read_before.pop(_identity(copy), None)
            reading = self._read_once(entry, copy)
            if reading.kind is None and reading.checksum is not None:
                _LOG.warning(
                    "%s of %s: %s was %s at first and is good when read again: the disk or its way to this host fails "
                    "intermittently",
                    self._place.source,
                    self._place.machine_dir.name,
                    os.fsdecode(entry.path),
                    before.kind,
                )
        return reading

    def _pause(self, seconds: float) -> None:
        if self._paused_seconds < _PAUSED_AT_MOST_SECONDS and not self._is_over():
            self._paused_seconds += seconds
            self._clock.sleep(seconds)

    def _read_once(self, entry: CatalogEntry, copy: StoredCopy) -> Reading:
        """Read the copy once. Raises OSError for errors that tell nothing about the file."""
        status = copy.status
        if status is None:
            return Reading(copy, None if copy.has_left_history else "missing" if copy.error is None else "unreadable")
        is_other = status.st_size != entry.size or (
            entry.checksum is None and not is_time(entry.mtime_ns, status.st_mtime_ns)
        )
        if is_other:
            return Reading(copy, None if copy.has_left_history else "content")
        try:
            found = self._checksum(copy)
        except OSError as error:
            if error.errno in NOT_OF_THE_FILE:
                raise
            if error.errno == errno.EACCES or copy.has_left_history:
                return Reading(copy)
            _LOG.warning("%s: cannot be read: %s", os.fsdecode(entry.path), error.strerror or error)
            return Reading(copy, "missing" if error.errno == errno.ENOENT else "unreadable")
        if entry.checksum is None or found == entry.checksum:
            return Reading(copy, checksum=found)
        return Reading(copy, None if copy.has_left_history else "content")

    def _checksum(self, copy: StoredCopy) -> bytes:
        status, identity = copy.status, _identity(copy)
        if identity in self._read_before:
            return self._read_before[identity]
        name = copy.names[0]
        descriptor = self._copies.open_file(name)
        try:
            found = checksum(descriptor, self._limiter)
        finally:
            os.close(descriptor)
        self.files += 1
        if status is not None and status.st_nlink > len(copy.names) and len(self._read_before) < _READ_BEFORE_LIMIT:
            # Another path may be the same file.
            self._read_before[identity] = found
        return found
