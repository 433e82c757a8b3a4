"""The agent's request of a session: JSON on standard input, ended by a line with a single ``.``.

Reading it takes few imports, so that a refused or silent session costs little memory.
"""

import json
import os
import re
import select
from typing import TYPE_CHECKING

from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.errors import MalformedMessage, RestoreFailed
from turku.protocol.session_framing import (
    GO,
    HISTORY_ACTIONS,
    SESSION_REQUEST_LIMIT_BYTES,
    SESSION_REQUEST_TIMEOUT_SECONDS,
)
from turku.storage.session.session_slots import SessionKind

if TYPE_CHECKING:
    from turku.protocol.messages import SessionRequest
    from turku.protocol.restore_messages import HistoryRequest

_END = re.compile(rb"(?:\A|\n)\.\r?(?:\n|\Z)")
_CHUNK_BYTES = 16 * 1024


def read(
    descriptor: int, *, timeout_seconds: float = SESSION_REQUEST_TIMEOUT_SECONDS, clock: Clock = SYSTEM_CLOCK
) -> bytes:
    """Return the text of the request on ``descriptor``, which stays open. Its end means that the agent is gone.

    Time and memory are bounded whatever comes (threats M7). Raises MalformedMessage.
    """
    deadline = clock.monotonic_seconds() + timeout_seconds
    received = bytearray()
    while True:
        chunk = _read_by(deadline, descriptor, _CHUNK_BYTES, clock)
        if chunk is None:
            raise MalformedMessage(
                f"the request did not end within {timeout_seconds:g} s",
                hint="it is JSON, ended by a line with a single '.'",
            )
        # The last line may have begun in an earlier chunk.
        start = max(0, len(received) - 3)
        received += chunk
        is_over = not chunk
        end = _END.search(received, start)
        if end is not None and (is_over or end.group().endswith(b"\n")):
            return bytes(received[: end.start()])
        if is_over:
            raise MalformedMessage(
                "the request ended before its last line",
                hint="it is JSON, ended by a line with a single '.'; standard input stays open after it",
            )
        if len(received) > SESSION_REQUEST_LIMIT_BYTES:
            raise MalformedMessage(f"the request is larger than {SESSION_REQUEST_LIMIT_BYTES} bytes")


def kind_of(content: bytes) -> SessionKind | None:
    """Return the kind of session that the request asks for. None for a request that ``parse`` will refuse."""
    try:
        request = json.loads(content)
    except (ValueError, RecursionError):
        return None
    action = request.get("action") if isinstance(request, dict) else None
    if not isinstance(action, str):
        return None
    if action in HISTORY_ACTIONS:
        return SessionKind.HISTORY
    return {"checkin": SessionKind.CHECKIN, "restore": SessionKind.RESTORE}.get(action)


def parse(content: bytes, kind: SessionKind | None) -> "SessionRequest | HistoryRequest":
    """Return the request, which must be of this ``kind``. Raises MalformedMessage."""
    from turku.protocol import codec
    from turku.protocol.messages import SessionRequest
    from turku.protocol.restore_messages import HistoryRequest

    if kind is SessionKind.HISTORY:
        return codec.decode(content, HistoryRequest)
    request = codec.decode(content, SessionRequest)
    if kind is None or request.action != kind.value:
        # Two parsers must not find different actions in one text: the session would exceed its kind's limits.
        raise MalformedMessage("the request names its action in two ways")
    return request


def read_go(descriptor: int, *, timeout_seconds: float, clock: Clock = SYSTEM_CLOCK) -> bool:
    """Return True if the agent confirms the restore, False if it ends its input instead.

    Raises RestoreFailed if it does not answer in time.
    """
    deadline = clock.monotonic_seconds() + timeout_seconds
    line = GO + b"\n"
    received = b""
    while len(received) < len(line):
        chunk = _read_by(deadline, descriptor, len(line) - len(received), clock)
        if chunk is None:
            raise RestoreFailed(
                f"nobody confirmed the restore within {timeout_seconds:g} s of its plan",
                hint="ask for it again; nothing was written",
            )
        if not chunk:
            return False
        received += chunk
    return received == line


def _read_by(deadline: float, descriptor: int, limit_bytes: int, clock: Clock) -> bytes | None:
    """Return what comes next, empty at the end of the input. None if nothing comes until the deadline."""
    remaining = deadline - clock.monotonic_seconds()
    if remaining <= 0 or not select.select([descriptor], [], [], remaining)[0]:
        return None
    return os.read(descriptor, limit_bytes)
