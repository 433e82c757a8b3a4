"""Reading what a program says line by line, where it says much: rsync flushes each of a million lines by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    import io

_CHUNK_BYTES = 64 * 1024
"""What a pipe holds, by default."""
_LONGEST_PAUSE_SECONDS = 0.01
_SHARE_OF_TIME = 0.02


@contextmanager
def emptied(stream: IO[bytes]) -> Iterator[None]:
    """Read what the block left of a pipe, however the block ends: its writer waits for ever once nobody reads it."""
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            while stream.read(_CHUNK_BYTES):
                pass


def lines_of(stream: IO[bytes], *, limit_bytes: int) -> Iterator[bytes]:
    """The lines of a pipe, with their line breaks; one that is longer than the limit comes in pieces.

    Nobody else reads the stream. Lines are awaited together: being woken for each one costs the reader more than the
    line, and the writer too. What is said comes late by a hundredth of a second at most, and by a fiftieth of the time
    that passed. Raises what reading raises: OSError, ValueError where the stream is closed meanwhile.
    """
    begun = time.monotonic()
    rest = b""
    reader = cast("io.BufferedIOBase", stream)
    while chunk := reader.read1(_CHUNK_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield from _pieces(line + b"\n", limit_bytes)
        if len(rest) > limit_bytes:
            *pieces, rest = _pieces(rest, limit_bytes)
            yield from pieces
        if len(chunk) < _CHUNK_BYTES // 2:
            time.sleep(min(_LONGEST_PAUSE_SECONDS, _SHARE_OF_TIME * (time.monotonic() - begun)))
    yield from _pieces(rest, limit_bytes)


def _pieces(text: bytes, limit_bytes: int) -> Iterator[bytes]:
    for start in range(0, len(text), limit_bytes):
        yield text[start : start + limit_bytes]
