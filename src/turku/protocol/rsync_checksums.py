"""Whether a rsync checks what it transfers by xxh128, the checksum that catalogs keep."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import suppress

from turku.core import command
from turku.errors import CommandFailed

XXH128 = "--checksum-choice=xxh128"
_TIMEOUT_SECONDS = 10.0
_ATTEMPTS = 2


def knows_xxh128(rsync_command: Sequence[str]) -> bool:
    """Return True when it says so of itself (3.2 and later, built with xxhash); False for what cannot be asked.

    One that was killed or too slow is asked again, now and by the next call.
    """
    for _attempt in range(_ATTEMPTS):
        with suppress(CommandFailed):
            return _asked(tuple(rsync_command))
    return False


@functools.lru_cache(maxsize=8)
def _asked(rsync_command: tuple[str, ...]) -> bool:
    return b"xxh128" in command.run([*rsync_command, "--version"], timeout_seconds=_TIMEOUT_SECONDS).stdout.split()
