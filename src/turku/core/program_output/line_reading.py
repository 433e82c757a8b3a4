"""Fast reading of lines from a program that writes many: rsync flushes each of a million lines separately."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    import io

_CHUNK_BYTES = 64 * 1024
"""Default capacity of a pipe."""
_LONGEST_PAUSE_SECONDS = 0.01
_SHARE_OF_TIME = 0.02


@contextmanager
def drained(stream: IO[bytes]) -> Iterator[None]:
    """Read the rest of a pipe at the end of the block, because its writer waits for ever once nobody reads."""
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            while stream.read(_CHUNK_BYTES):
                pass


def lines_of(stream: IO[bytes], *, limit_bytes: int) -> Iterator[bytes]:
    """Yield the lines of a pipe, with their line breaks. A line longer than the limit comes in pieces.

    Nobody else may read the stream. Several lines are awaited together, because waking up for each one costs more than
    the line itself, on both sides. A line is late by a hundredth of a second at most, and by a fiftieth of the elapsed
    time. Raises what reading raises: OSError, or ValueError if the stream is closed meanwhile.
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
