"""The recently changed entries of a source and its files with holes, as the agent names them after its request.

A machine that lies about them harms only its own backups. The size of its lines is bounded. A malformed line ends the
reading of further lines, never the session.
"""

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

from turku.core.filesystem.paths import is_entry_path
from turku.errors import MalformedMessage
from turku.protocol import codec
from turku.protocol.machine.changed_entries_messages import (
    LINES_LIMIT_BYTES,
    OWN_DIRECTORY,
    PATHS_LIMIT,
    ChangedEntriesLine,
    FilesWithHolesLine,
)
from turku.protocol.restore_messages import path_bytes

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_LINE: Any = ChangedEntriesLine | FilesWithHolesLine


@dataclass(frozen=True)
class ChangedEntries:
    """All entries of a source whose change time is ``since_ns`` (Unix nanoseconds of the machine's clock) or later."""

    since_ns: int
    paths: tuple[bytes, ...]
    """Paths inside the source, relative to it. ``b"."`` is the source's own directory."""


@dataclass(frozen=True)
class AttributeComparison:
    """The way in which a dry run finds changed ACLs and extended attributes.

    Comparing those of every entry takes as long as all other work. A change of one always moves the entry's change
    time, which the agent can read. A machine that names too few entries harms only its own backups.
    """

    since_ns: int | None = None
    """The machine's clock at the session that made the base, in Unix nanoseconds. None compares all attributes."""
    changed_entries: Callable[[float], ChangedEntries | None] = lambda _timeout_seconds: None
    """Waits this many seconds for the recently changed entries. Returns None if the agent cannot name them."""


class ChangedEntriesReader:
    """Parses the agent's lines in one thread, for any number of other threads."""

    def __init__(self, sources: Collection[str]) -> None:
        """Read answers about ``sources``, which the agent was asked about. Without any, read nothing."""
        self._asked = frozenset(sources)
        self._reported: dict[str, ChangedEntries | None] = {}
        self._with_holes: dict[str, frozenset[bytes] | None] = {}
        self._late: set[str] = set()
        self._news = threading.Condition()
        self._is_over = not sources
        self._line = bytearray()
        self._left_bytes = LINES_LIMIT_BYTES
        self._left_paths = PATHS_LIMIT

    @property
    def limit_bytes(self) -> int:
        """The number of bytes that the agent may send."""
        return LINES_LIMIT_BYTES if self._asked else 0

    def of_source(self, name: str, timeout_seconds: float) -> ChangedEntries | None:
        """Return the entries that the agent names. None if it was not asked, is gone, or does not name all in time.

        They do not include changes before their ``since_ns``. They serve a comparison with a snapshot of a session
        whose ``moment_ns`` was ``since_ns`` or later.
        """
        return self._wait_for(name, self._reported, timeout_seconds)

    def with_holes(self, name: str, timeout_seconds: float) -> frozenset[bytes] | None:
        """Return the source's files that have holes, None if the agent does not name all of them in time."""
        # Only the first caller waits.
        found = self._wait_for(name, self._with_holes, 0.0 if name in self._late else timeout_seconds)
        self._late.add(name)
        return found

    def _wait_for(self, name: str, reported: dict[str, T | None], timeout_seconds: float) -> T | None:
        with self._news:
            self._news.wait_for(lambda: name in reported or self._is_over or name not in self._asked, timeout_seconds)
            return reported.get(name)

    def feed(self, chunk: bytes) -> None:
        """Parse a further part of the agent's input."""
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
                # The thread that calls this also notices that the agent is gone.
                _LOG.exception("internal error while a line about changed entries was parsed")
                self.end()
                return
        self._line += rest

    def end(self) -> None:
        """Wake all waiting threads, as no further line comes."""
        with self._news:
            self._is_over = True
            self._news.notify_all()

    def _take(self, content: bytes) -> None:
        line: ChangedEntriesLine | FilesWithHolesLine = codec.decode(content, _LINE, limit_bytes=LINES_LIMIT_BYTES)
        is_about_holes = isinstance(line, FilesWithHolesLine)
        if line.source not in self._asked or line.source in (self._with_holes if is_about_holes else self._reported):
            raise MalformedMessage("a line is about a source that was not asked for, or that had its line already")
        self._left_paths -= len(line.paths)
        if self._left_paths < 0:
            raise MalformedMessage(f"more than {PATHS_LIMIT} paths came")
        paths = tuple(path_bytes(path) for path in line.paths)
        if not all(path == OWN_DIRECTORY or is_entry_path(path) for path in paths):
            raise MalformedMessage("a path does not lie inside its source")
        _LOG.debug(
            "source %s: the machine names %d %s%s",
            line.source,
            len(paths),
            "files with holes" if is_about_holes else "changed entries",
            "" if line.is_complete else ", and says that these may not be all",
        )
        with self._news:
            if isinstance(line, FilesWithHolesLine):
                self._with_holes[line.source] = frozenset(paths) if line.is_complete else None
            else:
                self._reported[line.source] = ChangedEntries(line.since_ns, paths) if line.is_complete else None
            self._news.notify_all()

    def _give_up(self, reason: str) -> None:
        _LOG.debug("the machine's further lines about changed entries are ignored: %s", reason)
        self.end()
