"""Limits on simultaneous sessions and on writers of a volume, held by locks that a killed session leaves free.

A session takes one slot before it reads its request, and another one of the request's kind before it serves it.
Without them one machine's key could fill the storage's memory (threats M11).
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from turku.core import lock
from turku.core.cancellation import NEVER, Cancellation
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.errors import LockHeld
from turku.storage.config.defaults import DEFAULT_HISTORY_SESSIONS, DEFAULT_VAR_DIR

if TYPE_CHECKING:
    from turku.storage.config.model import StorageConfig

RESTORE_SESSIONS: Final = 2
"""Restores of one machine: one that is running, and one whose broken connection was not noticed yet."""
UNREAD_SESSIONS: Final = 4
"""Sessions of one machine that have not sent their request yet."""
_SESSION_BYTES: Final = 20 * 1024 * 1024
"""Private memory of a session's program, rather too much. Its rsync has a limit of its own."""
_SHARE_OF_MEMORY: Final = 0.25
_FEWEST, _MOST = 16, 1000


class SessionKind(Enum):
    """The kind of a session. Sessions of one kind are counted together."""

    CHECKIN = "checkin"
    RESTORE = "restore"
    HISTORY = "history"
    """Browsing, and restores that the agent asked for without a checkin."""


@dataclass
class SessionSlots:
    """The slots of one machine's session. A context manager that frees them."""

    lock_dir: Path
    uuid: str
    at_once: int
    history_at_once: int
    _unread: ExitStack = field(default_factory=ExitStack)
    _held: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def of(cls, content: Mapping[str, Any], uuid: str) -> "SessionSlots":
        """Return the slots that the content of the configuration files allows. Wrong values count as the default."""
        var_dir = _text(content.get("var_dir"), DEFAULT_VAR_DIR)
        return cls(
            Path(_text(content.get("lock_dir"), f"{var_dir}/lock")),
            uuid,
            at_once=_count(content.get("max_sessions"), default_at_once()),
            history_at_once=_count(content.get("machine_history_sessions"), DEFAULT_HISTORY_SESSIONS),
        )

    def __enter__(self) -> "SessionSlots":
        return self

    def __exit__(self, *_error: object) -> None:
        self._unread.close()
        self._held.close()

    def begin(self) -> None:
        """Take a slot for reading the request. Raises LockHeld."""
        self._take(
            self._unread,
            (f"session-{self.uuid}-unread-{number}" for number in range(UNREAD_SESSIONS)),
            f"{UNREAD_SESSIONS} sessions of this machine are open here that have not sent a request",
            "they end by themselves within half a minute; try again then",
        )
        self._take_one_of_all(self._unread, "session-unread", range(self.at_once))

    def turn_to(self, kind: SessionKind) -> None:
        """Exchange the slot for reading for one of this kind. Raises LockHeld."""
        if kind is SessionKind.CHECKIN:
            self._take(
                self._held,
                [f"machine-{self.uuid}"],
                "another session of this machine is running",
                "its backup goes on; remaining sources are backed up at a later ping",
            )
            # From the other end than other kinds, which get half of the slots at most: backups come first.
            self._take_one_of_all(self._held, "session", range(self.at_once - 1, -1, -1))
        else:
            count, what, hint = {
                SessionKind.RESTORE: (
                    RESTORE_SESSIONS,
                    "restores of this machine are open here already",
                    "end one of them; one that nobody uses ends by itself (restore_idle_seconds)",
                ),
                SessionKind.HISTORY: (
                    self.history_at_once,
                    "sessions of this machine browse or restore here already (machine_history_sessions)",
                    "wait until one of them has ended",
                ),
            }[kind]
            names = (f"session-{self.uuid}-{kind.value}-{number}" for number in range(count))
            self._take(self._held, names, f"{count} {what}", hint)
            self._take_one_of_all(self._held, "session", range((self.at_once + 1) // 2))
        self._unread.close()

    def _take_one_of_all(self, stack: ExitStack, name: str, numbers: Iterable[int]) -> None:
        self._take(
            stack,
            (f"{name}-{number}" for number in numbers),
            f"this storage serves as many sessions as it may at once (max_sessions: {self.at_once})",
            "try again later; backups that are due stay due",
        )

    def _take(self, stack: ExitStack, names: Iterable[str], refusal: str, hint: str) -> None:
        try:
            stack.enter_context(lock.one_of(self.lock_dir, names))
        except LockHeld:
            raise LockHeld(refusal, hint=hint) from None


def default_at_once() -> int:
    """Return the number of sessions that fit into a quarter of the memory, at least a few."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(_MOST, max(_FEWEST, int(memory * _SHARE_OF_MEMORY) // _SESSION_BYTES))


def _text(value: Any, default: str) -> str:
    return value if isinstance(value, str) and value.startswith("/") else default


def _count(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default


WAIT_SECONDS: Final = 60.0
"""The time that a source, and its machine, wait for a slot."""
_CHECK_SECONDS: Final = 0.5


@contextmanager
def volume_slot(
    configuration: "StorageConfig",
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
