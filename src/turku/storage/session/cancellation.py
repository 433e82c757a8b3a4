"""The cancellation of a session when its agent is gone or its time is over.

The agent may name changed entries on the same standard input (``changed_entries.py``).
"""

import logging
import os
import select
import threading
from collections.abc import Collection

from turku.core.cancellation import Cancellation, Cancelled
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.protocol.session_framing import SESSION_REQUEST_LIMIT_BYTES
from turku.storage.backup.changed_entries import ChangedEntriesReader

_CHUNK_BYTES = 16 * 1024
_LOG = logging.getLogger(__name__)


class AgentDisconnected(Cancelled):
    """The session's standard input ended, or the session reached its time limit."""


class SessionCancellation(Cancellation):
    """A cancellation at the end of standard input, which a thread reads. A context manager.

    ``longest_seconds`` is the time limit of the session, None for no limit. Without a ``descriptor`` only the time
    limit ends the session. ``asked_sources`` are those whose changed entries the agent was asked for.
    """

    raised = AgentDisconnected

    def __init__(
        self,
        descriptor: int | None,
        *,
        longest_seconds: float | None = None,
        asked_sources: Collection[str] = (),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__()
        self.reason = "the agent ended the session"
        """The reason of the cancellation, once there is one."""
        self._input = descriptor
        self._longest_seconds = longest_seconds
        self._deadline = None if longest_seconds is None else clock.monotonic_seconds() + longest_seconds
        self._clock = clock
        self.reported = ChangedEntriesReader(asked_sources)
        """The changed entries that the agent names. Any thread may ask it."""
        self._over, self._end_of_block = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._watch, name="agent", daemon=True)

    def __enter__(self) -> "SessionCancellation":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._end_of_block)
        self._thread.join()
        os.close(self._over)

    def cancel(self) -> None:
        """End all work of the session, and all waiting for changed entries."""
        super().cancel()
        self.reported.end()

    def _watch(self) -> None:
        try:
            if self._is_over_first():
                return
        except Exception as error:
            # An unwatched session would go on without its agent.
            _LOG.exception("the agent cannot be watched any more; the session ends")
            self.reason = f"the agent could not be watched any more: {error}"
        self.cancel()

    def _is_over_first(self) -> bool:
        """Wait until the block ends and return True, or until the agent's input or the session's time ends."""
        received_bytes = 0
        limit_bytes = SESSION_REQUEST_LIMIT_BYTES + self.reported.limit_bytes
        poll = select.poll()
        if self._input is not None:
            poll.register(self._input, select.POLLIN)
        poll.register(self._over, select.POLLIN)
        # After the request only the requested lines may come. An agent that sends more counts as gone.
        while received_bytes <= limit_bytes:
            left = None if self._deadline is None else self._deadline - self._clock.monotonic_seconds()
            if left is not None and left <= 0:
                self.reason = f"the session lasted longer than {self._longest_seconds:g} s (max_run_seconds)"
                break
            ready = [descriptor for descriptor, _event in poll.poll(None if left is None else left * 1000)]
            if self._over in ready:
                return True
            if self._input is not None and self._input in ready:
                try:
                    chunk = os.read(self._input, _CHUNK_BYTES)
                except OSError:
                    break
                if not chunk:
                    break
                received_bytes += len(chunk)
                self.reported.feed(chunk)
        return False
