"""Detection of the rsync programs that know xxh128, the checksum that catalogs keep."""

import functools
from collections.abc import Sequence
from contextlib import suppress

from turku.core import command, retry
from turku.errors import CommandFailed

XXH128 = "--checksum-choice=xxh128"
_TIMEOUT_SECONDS = 10.0


def knows_xxh128(rsync_command: Sequence[str]) -> bool:
    """Return True when rsync names xxh128 among its checksums (3.2 and later, built with xxhash).

    Returns False where it cannot be asked. A program that was killed or too slow is asked again, now and by the next
    call.
    """
    with suppress(CommandFailed):
        return retry.call(
            lambda: _asked(tuple(rsync_command)), on=CommandFailed, pauses_seconds=(0.0,), sleep=lambda _seconds: None
        )
    return False


@functools.lru_cache(maxsize=8)
def _asked(rsync_command: tuple[str, ...]) -> bool:
    return b"xxh128" in command.run([*rsync_command, "--version"], timeout_seconds=_TIMEOUT_SECONDS).stdout.split()
