"""Noticing that the agent went away while backups run, and ending them at once."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

from turku.protocol.messages import SESSION_REQUEST_LIMIT_BYTES

_CHUNK_BYTES = 4096


class AgentGone(BaseException):
    """The session's standard input ended; a BaseException so that every ``finally`` runs and no handler swallows it."""


class AgentWatch:
    """Reads the rest of standard input in a thread; a context manager, for the main thread only.

    ``interrupting`` is for any thread.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._gone = threading.Event()
        self._interruptible = False
        self._lock = threading.Lock()
        self._threads: set[int] = set()
        """Those beside the main one that can be interrupted."""
        self._previous: Any = signal.SIG_DFL

    def __enter__(self) -> AgentWatch:
        self._previous = signal.signal(signal.SIGUSR1, self._interrupt)
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The thread may still wait for input; what it then sends must not end the process.
        signal.signal(signal.SIGUSR1, _do_nothing if self._previous == signal.SIG_DFL else self._previous)

    @property
    def is_gone(self) -> bool:
        return self._gone.is_set()

    def wait(self) -> None:
        """Return when the agent is gone."""
        self._gone.wait()

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """A block that AgentGone ends when the agent goes, or has gone; in a thread, between two steps of Python."""
        if threading.current_thread() is not threading.main_thread():
            with self._interrupting_thread(threading.get_ident()):
                yield
            return
        self._interruptible = True
        try:
            if self.is_gone:
                raise AgentGone
            yield
        finally:
            self._interruptible = False

    @contextmanager
    def _interrupting_thread(self, thread: int) -> Iterator[None]:
        with self._lock:
            self._threads.add(thread)
        try:
            if self.is_gone:
                raise AgentGone
            yield
        finally:
            with self._lock:
                if thread in self._threads:
                    self._threads.remove(thread)
                else:
                    # It may be on its way still; outside the block nobody expects it.
                    _raise_in(thread, None)

    def _interrupt(self, _signal_number: int, _frame: FrameType | None) -> None:
        if self._interruptible:
            # Once: a second one must not interrupt the cleaning up.
            self._interruptible = False
            raise AgentGone

    def _watch(self) -> None:
        received_bytes = 0
        with suppress(OSError):
            # Nothing comes after the request but the end; an agent that goes on sending is as good as gone.
            while received_bytes <= SESSION_REQUEST_LIMIT_BYTES:
                chunk = os.read(self._descriptor, _CHUNK_BYTES)
                if not chunk:
                    break
                received_bytes += len(chunk)
        self._gone.set()
        with self._lock:
            for thread in self._threads:
                _raise_in(thread, AgentGone)
            # Once: a second one must not interrupt the cleaning up.
            self._threads.clear()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)


def _do_nothing(_signal_number: int, _frame: FrameType | None) -> None:
    return


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Let the exception be raised in that thread at its next step; None takes back one that was not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None if kind is None else ctypes.py_object(kind))
