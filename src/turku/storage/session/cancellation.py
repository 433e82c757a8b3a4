"""Noticing that the agent went away while its session goes on: the token that all of the session's work carries.

The agent may name entries that changed lately on the same standard input (``changed_entries.py``).
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Collection
from types import TracebackType

from turku.core.cancellation import Cancellation, Cancelled
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.protocol.session_framing import SESSION_REQUEST_LIMIT_BYTES
from turku.storage.backup.changed_entries import ChangedEntries, ChangedEntriesReader

_CHUNK_BYTES = 16 * 1024
_LOG = logging.getLogger(__name__)


class AgentDisconnected(Cancelled):
    """The session's standard input ended, or the session lasted as long as it may."""


class SessionCancellation(Cancellation):
    """Reads the rest of standard input in a thread, and is cancelled at its end; a context manager.

    ``longest_seconds`` (None: no limit) is for how long the session may go on at all. Without a ``descriptor`` that
    alone ends it. ``asked_sources`` are those whose changed entries the agent was asked for.
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
        """Why it is cancelled, once it is."""
        self._input = descriptor
        self._longest_seconds = longest_seconds
        self._deadline = None if longest_seconds is None else clock.monotonic_seconds() + longest_seconds
        self._clock = clock
        self._changed = ChangedEntriesReader(asked_sources)
        self._over, self._end_of_block = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._watch, name="agent", daemon=True)

    def __enter__(self) -> SessionCancellation:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._end_of_block)
        self._thread.join()
        os.close(self._over)

    def cancel(self) -> None:
        """Let all that carries this token end, and nobody wait for changed entries any more."""
        super().cancel()
        self._changed.end()

    def changed_entries(self, source: str, timeout_seconds: float) -> ChangedEntries | None:
        """Return the entries of the source that changed lately, as the agent names them; wait for them so long.

        None where the agent was not asked, cannot tell, is gone, or says nothing in time. The entries say nothing about
        what changed before their ``since_ns``: they are good for a comparison with a snapshot of a session whose
        ``moment_ns`` was at ``since_ns`` or later. Any thread may ask.
        """
        return self._changed.of_source(source, timeout_seconds)

    def files_with_holes(self, source: str, timeout_seconds: float) -> frozenset[bytes] | None:
        """Return the source's files that have holes, as the agent names them; wait for that so long.

        None where the agent was not asked, cannot tell, is gone, or says nothing in time. Any thread may ask.
        """
        return self._changed.with_holes(source, timeout_seconds)

    def _watch(self) -> None:
        try:
            if self._is_over_first():
                return
        except Exception as error:
            # A session that nobody watches would go on without its agent.
            _LOG.exception("the agent cannot be watched any more; the session ends")
            self.reason = f"the agent could not be watched any more: {error}"
        self.cancel()

    def _is_over_first(self) -> bool:
        """Wait; return True where the block ended before the agent's input and the time that the session has."""
        received_bytes = 0
        limit_bytes = SESSION_REQUEST_LIMIT_BYTES + self._changed.limit_bytes
        poll = select.poll()
        if self._input is not None:
            poll.register(self._input, select.POLLIN)
        poll.register(self._over, select.POLLIN)
        # Nothing comes after the request but what was asked for, and the end. An agent that goes on is as good as gone.
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
                self._changed.feed(chunk)
        return False
