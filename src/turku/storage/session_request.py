"""What the agent asks of a session: JSON on standard input, ended by a line with a single ``.`` (contract, 4)."""

from __future__ import annotations

import os
import re
import select

from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.errors import MalformedMessage
from turku.protocol import codec
from turku.protocol.messages import (
    SESSION_REQUEST_LIMIT_BYTES,
    SESSION_REQUEST_TIMEOUT_SECONDS,
    SessionRequest,
)

_END = re.compile(rb"(?:\A|\n)\.\r?(?:\n|\Z)")
_CHUNK_BYTES = 16 * 1024


def read(
    descriptor: int,
    *,
    timeout_seconds: float = SESSION_REQUEST_TIMEOUT_SECONDS,
    clock: Clock = SYSTEM_CLOCK,
) -> SessionRequest:
    """The request on ``descriptor``, which stays open: its end means that the agent is gone.

    Bounded in time and memory whatever comes (threats M7). Raises MalformedMessage.
    """
    return codec.decode(_read_text(descriptor, timeout_seconds, clock), SessionRequest)


def _read_text(descriptor: int, timeout_seconds: float, clock: Clock) -> bytes:
    deadline = clock.monotonic_seconds() + timeout_seconds
    received = bytearray()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while True:
        remaining = deadline - clock.monotonic_seconds()
        if remaining <= 0 or not poll.poll(remaining * 1000):
            raise MalformedMessage(
                f"the request did not end within {timeout_seconds:g} s",
                hint="it is JSON, ended by a line with a single '.'",
            )
        chunk = os.read(descriptor, _CHUNK_BYTES)
        # A line with the mark may have begun in what came before.
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
