"""Whether a rsync checks what it transfers by xxh128, the checksum that catalogs keep."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from turku.core import command
from turku.errors import CommandFailed

XXH128 = "--checksum-choice=xxh128"
_TIMEOUT_SECONDS = 10.0


def knows_xxh128(rsync_command: Sequence[str]) -> bool:
    """Whether it says so of itself (3.2 and later, built with xxhash); False for what cannot be asked."""
    return _asked(tuple(rsync_command))


@functools.lru_cache(maxsize=8)
def _asked(rsync_command: tuple[str, ...]) -> bool:
    try:
        return b"xxh128" in command.run([*rsync_command, "--version"], timeout_seconds=_TIMEOUT_SECONDS).stdout.split()
    except CommandFailed:
        return False
