"""The reader of rsync's standard output: lines about entries, statistics, and messages.

The lines name the entries to look at, and nothing more. A machine's messages come in the same stream, so contents and
checksums are taken from the tree itself.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import IO

from turku.core import command
from turku.core.line_reading import lines_of
from turku.core.log import one_line
from turku.storage.rsync import change_log, messages, stats
from turku.storage.rsync.change_log import ItemizedLine
from turku.storage.rsync.file_errors import FileErrors

_STATISTICS = (
    "Number of ",
    "Total ",
    "Literal data:",
    "Matched data:",
    "File list ",
    "sent ",
    "total size is ",
)
_LOG = logging.getLogger(__name__)


class OutputReader:
    """Parses the output of one rsync run."""

    def __init__(
        self,
        module: str,
        suffixes: stats.SuffixCounter,
        on_entry: Callable[[ItemizedLine], None],
        *,
        has_targets: bool,
        directory: bytes,
    ) -> None:
        """``on_entry`` is called for each line about an entry. ``directory`` is the directory in which rsync works."""
        self.suffixes = suffixes
        self.statistics: deque[str] = deque(maxlen=command.KEPT_LINES)
        self.others: deque[str] = deque(maxlen=command.KEPT_LINES)
        self.all_lines_parsed = True
        self.skipped_devices = 0
        self.file_errors = FileErrors()
        self.marker = change_log.random_marker()
        self._directory = directory
        self._module = module
        self._on_entry = on_entry
        self._has_targets = has_targets
        self._is_abandoned = False

    def abandon(self) -> None:
        """Make ``read`` return without reading the rest."""
        self._is_abandoned = True

    def add_message(self, raw: bytes) -> None:
        """Parse a line that may be about a single entry, from either stream."""
        self.file_errors.parse_line(raw, directory=self._directory)

    def read(self, stream: IO[bytes]) -> None:
        """Read the stream to its end."""
        try:
            for raw in lines_of(stream, limit_bytes=change_log.LINE_LIMIT_BYTES):
                if self._is_abandoned:
                    return
                self._parse(raw)
        except Exception:
            # rsync would wait forever if nobody read its output.
            self.all_lines_parsed = False
            _LOG.exception("%s: parsing rsync's output failed, the rest of it is ignored", self._module)
            while stream.read(65536):
                pass

    def _parse(self, raw: bytes) -> None:
        if not raw.endswith(b"\n"):
            # rsync's next line may continue where a machine's message ends.
            self.all_lines_parsed = False
        if self.marker in raw:
            line = change_log.parse(raw, self.marker, has_targets=self._has_targets)
            if line is None:
                self.all_lines_parsed = False
                return
            self._on_entry(line)
            if line.is_new_file:
                self.suffixes.add(line.path)
            return
        text = one_line(raw.rstrip(b"\r\n"))
        if text.startswith(_STATISTICS):
            self.statistics.append(text)
        elif messages.is_not_regular(text):
            # FIFOs and sockets are kept, so this is a device.
            self.skipped_devices += 1
        elif text:
            self.add_message(raw)
            self.others.append(text)
            _LOG.debug("%s: %s", self._module, text)
