"""The meaning of rsync's exit codes for a backup."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """The severity of an exit status."""

    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class ExitStatus:
    """The severity of a run's exit code, with its meaning in words."""

    severity: Severity
    meaning: str
    is_request_failure: bool = False
    """True if rsync rejected or crashed over the request, so that a full run may succeed.

    A full run does not help with unreadable files, a full disk or a lost machine.
    """

    is_connection_failure: bool = False
    """True if the other side or the connection was lost. The session may be ending for the same reason."""

    is_partial: bool = False
    """True if everything came except entries that cannot be read or became something else meanwhile."""

    @property
    def success(self) -> bool:
        """True for success and for a warning."""
        return self.severity is not Severity.FAILURE


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
    """Return success for 0, a warning for 24 (contract, section 4.5), and a failure for any other code.

    ``exit_code`` is counted as in a shell: above 128, a signal ended rsync.
    """
    if exit_code == 0:
        return ExitStatus(Severity.SUCCESS, "complete")
    if exit_code == 24:
        return ExitStatus(Severity.WARNING, "some files vanished on the machine while they were read")
    meaning = _MEANINGS.get(exit_code)
    if meaning is None:
        meaning = f"rsync was killed by signal {exit_code - 128}" if exit_code > 128 else "an unknown failure"
    return ExitStatus(
        Severity.FAILURE,
        f"{meaning} (rsync exit code {exit_code})",
        is_request_failure=exit_code in _OF_REQUEST,
        is_connection_failure=exit_code in _OF_CONNECTION,
        is_partial=exit_code == _PARTIAL,
    )
