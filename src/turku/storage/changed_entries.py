"""The entries of a source that changed lately, as the agent names them on standard input after its request.

A machine that lies about them harms its own backups only. What it sends is bounded, and whatever is not as it should be
ends the reading of further lines, never the session.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from dataclasses import dataclass

from turku.core import directory_tree
from turku.errors import MalformedMessage
from turku.protocol import codec
from turku.protocol.changed_entries_messages import (
    LINES_LIMIT_BYTES,
    OWN_DIRECTORY,
    PATHS_LIMIT,
    ChangedEntriesLine,
)
from turku.protocol.restore_messages import path_bytes

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChangedEntries:
    """All entries of a source whose change time is ``since_ns`` (Unix nanoseconds of the machine's clock) or later."""

    since_ns: int
    paths: tuple[bytes, ...]
    """Each lies inside the source and is relative to it; ``b"."`` is the source's own directory."""


class ChangedEntriesReader:
    """Takes the agent's lines from one thread, and has them ready for any number of others."""

    def __init__(self, sources: Collection[str]) -> None:
        """``sources`` are those that the agent was asked for; without any, nothing is read."""
        self._asked = frozenset(sources)
        self._told: dict[str, ChangedEntries | None] = {}
        self._news = threading.Condition()
        self._is_over = not sources
        self._line = bytearray()
        self._left_bytes = LINES_LIMIT_BYTES
        self._left_paths = PATHS_LIMIT

    @property
    def limit_bytes(self) -> int:
        """The size of what an agent may send that was asked as this one was."""
        return LINES_LIMIT_BYTES if self._asked else 0

    def of_source(self, name: str, timeout_seconds: float) -> ChangedEntries | None:
        """Return what the agent names; wait for it so long. None where it does not, or cannot name everything."""
        if name not in self._asked:
            return None
        with self._news:
            self._news.wait_for(lambda: name in self._told or self._is_over, timeout_seconds)
            return self._told.get(name)

    def feed(self, chunk: bytes) -> None:
        """Take a further part of the agent's input."""
        if self._is_over:
            return
        self._left_bytes -= len(chunk)
        if self._left_bytes < 0:
            self._give_up(f"more than {LINES_LIMIT_BYTES} bytes came")
            return
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._line += end
            line, self._line = bytes(self._line), bytearray()
            try:
                self._take(line)
            except MalformedMessage as error:
                self._give_up(error.message)
                return
            except Exception:
                # Whoever feeds this is also who notices that the agent is gone.
                _LOG.exception("internal error while a line about changed entries was read")
                self.end()
                return
        self._line += rest

    def end(self) -> None:
        """Let nobody wait any more: no further line comes."""
        with self._news:
            self._is_over = True
            self._news.notify_all()

    def _take(self, content: bytes) -> None:
        line = codec.decode(content, ChangedEntriesLine, limit_bytes=LINES_LIMIT_BYTES)
        if line.source not in self._asked or line.source in self._told:
            raise MalformedMessage("a line is about a source that was not asked for, or was told of before")
        self._left_paths -= len(line.paths)
        if self._left_paths < 0:
            raise MalformedMessage(f"more than {PATHS_LIMIT} paths came")
        paths = tuple(path_bytes(path) for path in line.paths)
        if not all(path == OWN_DIRECTORY or directory_tree.is_inside(path) for path in paths):
            raise MalformedMessage("a path does not lie inside its source")
        _LOG.debug(
            "source %s: the machine names %d changed entries%s",
            line.source,
            len(paths),
            "" if line.is_complete else ", and says that these may not be all",
        )
        with self._news:
            self._told[line.source] = ChangedEntries(line.since_ns, paths) if line.is_complete else None
            self._news.notify_all()

    def _give_up(self, reason: str) -> None:
        _LOG.debug("what the machine says about changed entries is not used from here on: %s", reason)
        self.end()
