"""Checksums of stored files, read from the disk rather than from the page cache, at a limited rate."""

import os
from dataclasses import dataclass, field

import xxhash

from turku.core.clock import SYSTEM_CLOCK, Clock

CHUNK_BYTES = 1024 * 1024


@dataclass
class RateLimiter:
    """A limit on reading. ``bytes_per_second`` of None is no limit."""

    bytes_per_second: float | None = None
    clock: Clock = SYSTEM_CLOCK
    read_bytes: int = 0
    _begin: float = field(default=-1.0, init=False)

    def consume(self, count: int) -> None:
        """Count bytes that were read, and wait if reading was too fast."""
        self.read_bytes += count
        if self.bytes_per_second is None:
            return
        now = self.clock.monotonic_seconds()
        if self._begin < 0:
            self._begin = now
        ahead = self._begin + self.read_bytes / self.bytes_per_second - now
        if ahead > 0:
            self.clock.sleep(ahead)


def checksum(descriptor: int, pace: RateLimiter) -> bytes:
    """Return the xxh128 of the open file's content, as rsync computes it. Raises OSError for a read error."""
    hasher = xxhash.xxh128()
    # A backup's new files are still in the page cache. The disk is to be asked.
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    offset = 0
    while chunk := os.pread(descriptor, CHUNK_BYTES, offset):
        hasher.update(chunk)
        os.posix_fadvise(descriptor, offset, len(chunk), os.POSIX_FADV_DONTNEED)
        offset += len(chunk)
        pace.consume(len(chunk))
    return hasher.digest()


def checksum_in_memory(descriptor: int, size_bytes: int) -> bytes:
    """Return the xxh128 of the open file's content, which was written just now and should be ``size_bytes`` long.

    Raises OSError.
    """
    # One byte more, so that a longer file is read on. A buffer of a megabyte for each small file would cost more than
    # the file.
    content = os.read(descriptor, min(size_bytes + 1, CHUNK_BYTES))
    if len(content) <= size_bytes < CHUNK_BYTES:
        digest: bytes = xxhash.xxh128_digest(content)
        return digest
    hasher = xxhash.xxh128()
    while content:
        hasher.update(content)
        content = os.read(descriptor, CHUNK_BYTES)
    return hasher.digest()
