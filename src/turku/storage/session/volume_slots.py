"""The limit of backups that write to one volume at once, held by locks that a killed session leaves free."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from turku.core import lock
from turku.core.cancellation import NEVER, Cancellation
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.errors import LockHeld
from turku.storage.config.model import StorageConfig

WAIT_SECONDS: Final = 60.0
"""The time that a source, and its machine, wait for a slot."""
_CHECK_SECONDS: Final = 0.5


@contextmanager
def volume_slot(
    configuration: StorageConfig,
    machine_dir: Path,
    *,
    wait_seconds: float = WAIT_SECONDS,
    clock: Clock = SYSTEM_CLOCK,
    cancellation: Cancellation = NEVER,
) -> Iterator[None]:
    """Hold a slot of the machine's volume for the backup of one source.

    Raises LockHeld if none becomes free in time, and whatever ``cancellation`` raises.
    """
    count = configuration.sessions.volume_slots
    if count is None:
        yield
        return
    names = [f"volume-{_key(machine_dir)}-{number}" for number in range(count)]
    deadline = clock.monotonic_seconds() + wait_seconds
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock.one_of(configuration.state.lock_dir, names))
                break
            except LockHeld:
                if clock.monotonic_seconds() >= deadline:
                    raise _busy(count) from None
            cancellation.check()
            clock.sleep(_CHECK_SECONDS)
        yield


def _busy(count: int) -> LockHeld:
    return LockHeld(
        f"its volume is busy: {count} backup{'' if count == 1 else 's'} write to it already (volume_slots)",
        hint="it stays due, and is done at a later ping",
    )


def _key(machine_dir: Path) -> str:
    """Return a file name for the volume, because its path may contain any character and be long."""
    return hashlib.sha256(bytes(machine_dir.parent)).hexdigest()[:16]
