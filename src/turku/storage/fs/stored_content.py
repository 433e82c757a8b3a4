"""Reading stored files again: from the disk rather than from memory, gently, and leaving memory to others."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import xxhash

from turku.core.clock import SYSTEM_CLOCK, Clock

CHUNK_BYTES = 1024 * 1024


@dataclass
class RateLimiter:
    """How fast is read at most; ``bytes_per_second`` of None is as fast as it goes."""

    bytes_per_second: float | None = None
    clock: Clock = SYSTEM_CLOCK
    read_bytes: int = 0
    _begin: float = field(default=-1.0, init=False)

    def consume(self, count: int) -> None:
        """Take note of what was read, and wait where it was too fast."""
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
    """xxh128 of the open file's content, as rsync has it. Raises OSError where the disk does not give it."""
    hasher = xxhash.xxh128()
    # What a backup has just written lies in memory still: it is the disk that is to be asked.
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    offset = 0
    while chunk := os.pread(descriptor, CHUNK_BYTES, offset):
        hasher.update(chunk)
        os.posix_fadvise(descriptor, offset, len(chunk), os.POSIX_FADV_DONTNEED)
        offset += len(chunk)
        pace.consume(len(chunk))
    return hasher.digest()


def checksum_in_memory(descriptor: int, size_bytes: int) -> bytes:
    """Return the xxh128 of the open file's content, which was written just now; ``size_bytes`` is what it should have.

    Raises OSError.
    """
    # A byte more: a file that is larger is read on. A buffer of a megabyte for each small file would cost more than it.
    content = os.read(descriptor, min(size_bytes + 1, CHUNK_BYTES))
    if len(content) <= size_bytes < CHUNK_BYTES:
        digest: bytes = xxhash.xxh128_digest(content)
        return digest
    hasher = xxhash.xxh128()
    while content:
        hasher.update(content)
        content = os.read(descriptor, CHUNK_BYTES)
    return hasher.digest()
