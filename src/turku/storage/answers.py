"""What a storage answers to a machine that looks at history or wants it back: one JSON object a line."""

from __future__ import annotations

import threading
from typing import IO, Any

from turku.protocol import codec


class Answers:
    """Writes answers, each as a line of its own, from any thread."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, answer: Any) -> None:
        """Send one of ``turku.protocol.restore_messages.Answer``. Raises OSError where nobody reads any more."""
        self.send_many([answer])

    def send_many(self, answers: list[Any]) -> None:
        """Send several at once."""
        content = b"".join(codec.encode(answer) + b"\n" for answer in answers)
        with self._lock:
            self._stream.write(content)
            self._stream.flush()
