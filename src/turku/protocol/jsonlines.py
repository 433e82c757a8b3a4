"""The stream of answers of a storage to browse and restore requests: one JSON object on each line."""

import select
import threading
from typing import IO, Any, Final

from turku.core.cancellation import Cancellation
from turku.core.cli.output import escaped_json
from turku.protocol import codec

STALL_SECONDS: Final = 300.0
"""An agent that reads nothing for this long is gone."""
_CHUNK_BYTES = 4096
"""Bytes that a writable pipe or socket takes without waiting for its reader."""


class JsonLines:
    """A writer of answers, one on each line, usable from any thread.

    If the reader stalls for too long, ``cancellation`` is cancelled.
    """

    def __init__(
        self, stream: IO[bytes], cancellation: Cancellation | None = None, *, stall_seconds: float = STALL_SECONDS
    ) -> None:
        self._stream = stream
        self._cancellation = cancellation or Cancellation()
        self._stall_seconds = stall_seconds
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._poll.register(stream, select.POLLOUT)
        self._poll.register(self._cancellation.descriptor, select.POLLIN)

    def send(self, answer: Any) -> None:
        """Send one of ``turku.protocol.restore_messages.Answer``.

        Raises OSError if nobody reads any more (TimeoutError: for long), and what ``cancellation`` raises.
        """
        self.send_many([answer])

    def send_many(self, answers: list[Any]) -> None:
        """Send several answers at once."""
        content = memoryview(_printable(b"".join(codec.encode(answer) + b"\n" for answer in answers)))
        with self._lock:
            for start in range(0, len(content), _CHUNK_BYTES):
                ready = self._poll.poll(self._stall_seconds * 1000)
                self._cancellation.check()
                if not ready:
                    self._cancellation.cancel()
                    raise TimeoutError(f"the agent took no answer for {self._stall_seconds:g} s")
                self._stream.write(content[start : start + _CHUNK_BYTES])
                self._stream.flush()


def _printable(content: bytes) -> bytes:
    # A person who runs the session by hand sees it in a terminal.
    return escaped_json(content.decode()).encode()
