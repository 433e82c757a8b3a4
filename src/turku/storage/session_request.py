"""What the agent asks of a session: JSON on standard input, ended by a line with a single ``.`` (contract, 4)."""

from __future__ import annotations

import os
import re
import select
from typing import Any

import msgspec

from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.errors import MalformedMessage
from turku.protocol import codec, restore_messages
from turku.protocol.messages import (
    SESSION_REQUEST_LIMIT_BYTES,
    SESSION_REQUEST_TIMEOUT_SECONDS,
    SessionRequest,
)
from turku.protocol.restore_messages import HistoryRequest

_END = re.compile(rb"(?:\A|\n)\.\r?(?:\n|\Z)")
_CHUNK_BYTES = 16 * 1024


class _Action(msgspec.Struct):
    action: Any = None


def read(
    descriptor: int,
    *,
    timeout_seconds: float = SESSION_REQUEST_TIMEOUT_SECONDS,
    clock: Clock = SYSTEM_CLOCK,
) -> SessionRequest | HistoryRequest:
    """The request on ``descriptor``, which stays open: its end means that the agent is gone.

    Bounded in time and memory whatever comes (threats M7). Raises MalformedMessage.
    """
    content = _read_text(descriptor, timeout_seconds, clock)
    if codec.decode(content, _Action).action in restore_messages.ACTIONS:
        return codec.decode(content, HistoryRequest)
    return codec.decode(content, SessionRequest)


def read_go(descriptor: int, *, timeout_seconds: float, clock: Clock = SYSTEM_CLOCK) -> bool:
    """Whether the agent lets us go on; False when it ends its input instead, or says nothing for so long."""
    deadline = clock.monotonic_seconds() + timeout_seconds
    line = restore_messages.GO + b"\n"
    received = b""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while len(received) < len(line):
        remaining = deadline - clock.monotonic_seconds()
        if remaining <= 0 or not poll.poll(remaining * 1000):
            return False
        chunk = os.read(descriptor, len(line) - len(received))
        if not chunk:
            return False
        received += chunk
    return received == line


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
