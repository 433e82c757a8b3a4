"""The result of one rsync run, and the meaning of its exit code for a backup."""

import re
from dataclasses import dataclass, field, replace

from turku.storage.rsync import stats
from turku.storage.rsync.file_errors import FileErrors


@dataclass(frozen=True)
class ExitStatus:
    """The meaning of a run's exit code."""

    success: bool
    """True for success and for a warning."""
    meaning: str
    """Words for people. ``COMPLETE`` after a run without any fault."""
    is_request_failure: bool = False
    """True if rsync rejected or crashed over the request, so that a full run may succeed.

    A full run does not help with unreadable files, a full disk or a lost machine.
    """

    is_connection_failure: bool = False
    """True if the other side or the connection was lost. The session may be ending for the same reason."""

    is_partial: bool = False
    """True if everything came except entries that cannot be read or became something else meanwhile."""


COMPLETE = "complete"
_PARTIAL = 23
_OF_REQUEST = (1, 2, 4, 12, 13, 14)
_OF_CONNECTION = (10, 12, 30, 35)
_MEANINGS = {
    1: "rsync did not accept its options",
    2: "the two rsyncs speak no common protocol",
    3: "the module or directory could not be selected",
    4: "this rsync cannot do what was asked",
    5: "the machine's rsync daemon refused: the source's directory is not there, or wrong module or one-time password",
    6: "the machine's rsync daemon could not write its log",
    10: "the tunnel or the connection broke (socket error)",
    11: "a file could not be read or written (no space, no quota, input/output error)",
    12: "the data stream broke: the machine's rsync, its agent or the tunnel ended",
    13: "rsync's own diagnostics failed",
    14: "rsync's own processes lost each other",
    19: "rsync was ended (SIGUSR1)",
    20: "rsync was ended by a signal",
    21: "rsync lost its child process",
    22: "rsync ran out of memory",
    23: "some files could not be transferred",
    25: "the limit of deletions was reached",
    30: "nothing came through the tunnel for too long",
    35: "the machine's rsync daemon did not answer in time",
    126: "the storage's rsync could not be run (rsync_command)",
    127: "the storage's rsync is not installed, or not where rsync_command says",
}


def exit_status(exit_code: int) -> ExitStatus:
    """Return success for 0, a warning for 24 (contract, "A backup session", step 5), and a failure for any other code.

    ``exit_code`` is counted as in a shell: above 128, a signal ended rsync.
    """
    if exit_code == 0:
        return ExitStatus(success=True, meaning=COMPLETE)
    if exit_code == 24:
        return ExitStatus(success=True, meaning="some files vanished on the machine while they were read")
    meaning = _MEANINGS.get(exit_code)
    if meaning is None:
        meaning = f"rsync was killed by signal {exit_code - 128}" if exit_code > 128 else "an unknown failure"
    return ExitStatus(
        success=False,
        meaning=f"{meaning} (rsync exit code {exit_code})",
        is_request_failure=exit_code in _OF_REQUEST,
        is_connection_failure=exit_code in _OF_CONNECTION,
        is_partial=exit_code == _PARTIAL,
    )


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

    exit_status: ExitStatus
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

    def after(self, earlier: "TransferResult") -> "TransferResult":
        """Return this result with the statistics of an earlier run of the same backup added."""
        return replace(
            self,
            statistics=stats.summed(self.statistics, earlier.statistics),
            suffixes=self.suffixes.combined_with(earlier.suffixes),
            all_lines_parsed=self.all_lines_parsed and earlier.all_lines_parsed,
            was_restarted=self.was_restarted or earlier.was_restarted,
            written_bytes=self.written_bytes + earlier.written_bytes,
        )

    def with_amounts_of(self, later: "TransferResult") -> "TransferResult":
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
        if self.exit_status.meaning != COMPLETE:
            lines = [self.exit_status.meaning, *self.last_lines, *lines]
        if self.skipped_devices_warning:
            lines.append(self.skipped_devices_warning)
        return "\n".join(line[:_LINE_LIMIT] for line in lines)[:SUMMARY_LIMIT]
