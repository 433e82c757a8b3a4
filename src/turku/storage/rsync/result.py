"""The result of one rsync run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from turku.storage.rsync import exit_codes, stats
from turku.storage.rsync.file_errors import FileErrors

SUMMARY_LIMIT = 60_000
"""Characters. The protocol takes 65,536 (``turku.protocol.messages.SourceReport``)."""
_LINE_LIMIT = 1000
_RECEIVED = re.compile(r"Total bytes received: (\d+)")
_MEASURABLE_BYTES = 16 * 1024 * 1024
_AMOUNTS = ("Literal data:", "Matched data:", "File list ", "Total bytes ", "sent ", "total size is ")
"""Statistics of the data that was sent. A dry run sends nothing."""


@dataclass(frozen=True)
class TransferResult:
    """rsync's exit status, its statistics, and its last other lines."""

    exit_status: exit_codes.ExitStatus
    statistics: tuple[str, ...]
    last_lines: tuple[str, ...]
    suffixes: stats.SuffixCounter = field(default_factory=lambda: stats.SuffixCounter(None))
    seconds: float = 0.0
    """Duration of the run."""
    all_lines_parsed: bool = False
    """True if every line about an entry was parsed, so that the change log has everything that rsync did."""
    was_restarted: bool = False
    """True if rsync was stopped and started again at the end of a bandwidth window."""
    written_bytes: int = 0
    file_errors: FileErrors = field(default_factory=FileErrors)
    """rsync's messages about single entries."""
    skipped_devices: int = 0

    def after(self, earlier: TransferResult) -> TransferResult:
        """Return this result with the statistics of an earlier run of the same backup added."""
        return replace(
            self,
            statistics=stats.summed(self.statistics, earlier.statistics),
            suffixes=self.suffixes.combined_with(earlier.suffixes),
            all_lines_parsed=self.all_lines_parsed and earlier.all_lines_parsed,
            was_restarted=self.was_restarted or earlier.was_restarted,
            written_bytes=self.written_bytes + earlier.written_bytes,
        )

    def with_amounts_of(self, later: TransferResult) -> TransferResult:
        """Return this dry run's statistics of the source with the exit status and data amounts of the later run."""
        amounts = [line for line in later.statistics if line.startswith(_AMOUNTS)]
        kept = [line for line in self.statistics if not line.startswith(_AMOUNTS)]
        return replace(
            later,
            statistics=(*kept, *amounts),
            suffixes=self.suffixes,
            # A run with --files-from does not count devices.
            skipped_devices=self.skipped_devices,
        )

    @property
    def bytes_per_second(self) -> float | None:
        """The rate at which data came from the machine. None if too little data came to measure it."""
        found = [match for line in self.statistics if (match := _RECEIVED.match(line))]
        received = int(found[-1][1]) if found else 0
        return received / self.seconds if received >= _MEASURABLE_BYTES and self.seconds > 0 else None

    @property
    def skipped_devices_warning(self) -> str:
        """A sentence about device files that were not kept by choice. Empty if there were none."""
        if not self.skipped_devices:
            return ""
        what = "1 device file is" if self.skipped_devices == 1 else f"{self.skipped_devices} device files are"
        return f"{what} left out: this storage makes none (keep_devices, which takes root)"

    @property
    def summary(self) -> str:
        """The text for the report: meaning and last lines of a failure, then statistics, bounded in length."""
        lines = list(self.statistics)
        if self.exit_status.severity is not exit_codes.Severity.SUCCESS:
            lines = [self.exit_status.meaning, *self.last_lines, *lines]
        if self.skipped_devices_warning:
            lines.append(self.skipped_devices_warning)
        return "\n".join(line[:_LINE_LIMIT] for line in lines)[:SUMMARY_LIMIT]
