"""How many backups write to one volume at once: ``volume_slots``, held by locks that a killed session leaves free."""

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
"""How long a source waits for its turn, its machine with it."""
_LOOK_SECONDS: Final = 0.5


@contextmanager
def volume_slot(
    configuration: StorageConfig,
    machine_dir: Path,
    *,
    wait_seconds: float = WAIT_SECONDS,
    clock: Clock = SYSTEM_CLOCK,
    cancellation: Cancellation = NEVER,
) -> Iterator[None]:
    """Hold a slot of the volume that has the machine's directory, for one source's backup.

    Raises LockHeld where none becomes free in time, and what ``cancellation`` raises.
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
            clock.sleep(_LOOK_SECONDS)
        yield


def _busy(count: int) -> LockHeld:
    return LockHeld(
        f"its volume is busy: {count} backup{'' if count == 1 else 's'} write to it already (volume_slots)",
        hint="it stays due, and is done at a later ping",
    )


def _key(machine_dir: Path) -> str:
    """What names the volume in a file name: its path may hold anything, and be long."""
    return hashlib.sha256(bytes(machine_dir.parent)).hexdigest()[:16]
