"""The tree of errors. A class is one kind of failure, with a stable code and an exit code.

Callers catch a branch and never compare codes or statuses. Exit codes follow sysexits(3) where it has a fitting one.
docs/reference/errors.md lists them, and a test compares the two.
"""

from typing import ClassVar, Self


class TurkuError(Exception):
    """A foreseen failure, worded for the person who must act on it.

    The message says what happened and where, ``details`` holds evidence such as the last lines a program printed, and
    ``hint`` says what to do.
    """

    code: ClassVar[str] = "turku"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = True
    """False where the same request fails again, whatever happens meanwhile."""

    def __init__(self, message: str, *, details: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.hint = hint

    @property
    def sentence(self) -> str:
        """The message, with the hint in brackets."""
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def with_hint(self, hint: str) -> Self:
        """Return the same error with another hint."""
        return type(self)(self.message, details=self.details, hint=hint)


class UsageError(TurkuError):
    """The command line is not valid."""

    code = "usage"
    exit_code = 64
    retryable = False


class InvalidValue(TurkuError):
    """A value is not valid: a name, key, schedule, retention or filter rule. The message says what would be."""

    code = "invalid-value"
    exit_code = 65
    retryable = False


class MalformedMessage(TurkuError):
    """A protocol message does not have the shape that the contract gives it. The message names the field."""

    code = "malformed-message"
    exit_code = 76
    retryable = False


class ApiError(TurkuError):
    """A call to the coordinator did not succeed."""


class ApiUnreachable(ApiError):
    """The coordinator gave no usable answer: network, TLS, time-out, a server error, or another program's answer."""

    code = "api-unreachable"
    exit_code = 69


class ApiRefused(ApiError):
    """The coordinator, or a proxy before it, refused the call (HTTP 4xx).

    The branches below are the refusals that mean one thing only. Only those tell for certain that nothing was done.
    """

    code = "api-refused"
    exit_code = 77
    status: ClassVar[int] = 400
    """The HTTP status with which a coordinator sends this refusal."""


class ApiRejected(ApiRefused):
    """The coordinator does not accept the content of the message (400)."""


class ApiForbidden(ApiRefused):
    """The coordinator does not accept the credentials, or the machine or storage is not active (403)."""

    status = 403


class ApiRemoved(ApiForbidden):
    """An operator removed this machine or storage at the coordinator (403). It does not register again by itself."""


class ApiNotFound(ApiRefused):
    """The coordinator does not have the call, as the existing system's, or not what the call names (404)."""

    status = 404


class ApiThrottled(ApiRefused):
    """The caller asked for too much lately (429)."""

    status = 429


class CommandFailed(TurkuError):
    """A program could not be started, failed, or did not end in time."""

    code = "command-failed"
    exit_code = 70


class StorageUnreachable(CommandFailed):
    """No SSH session with a storage came about, or it broke."""

    code = "storage-unreachable"
    exit_code = 69


class HostKeyRefused(CommandFailed):
    """A storage shows another host key than the ones that this machine trusts, and got nothing."""

    code = "host-key-refused"
    exit_code = 67


class NotAdmitted(CommandFailed):
    """A storage does not let this machine in. It may not have the machine's key yet."""

    code = "not-admitted"
    exit_code = 77


class ConfigurationError(TurkuError):
    """The configuration cannot be used. The message lists every fault with file and key."""

    code = "configuration"
    exit_code = 78


class LockHeld(TurkuError):
    """Another run of the same program holds the lock."""

    code = "lock-held"
    exit_code = 75


class DurableWriteFailed(TurkuError):
    """A file that must survive a crash could not be written: no space, no permission, or a read-only file system."""

    code = "write-failed"
    exit_code = 73


class BackupFailed(TurkuError):
    """A backup failed, or one or more backups of a session did and each was reported by itself."""

    code = "backup-failed"
    exit_code = 2


class RestoreError(TurkuError):
    """A restore did not bring everything back."""


class RestoreIncomplete(RestoreError):
    """Some of the files were restored. The others were not, or differ from the backup."""

    code = "restore-incomplete"
    exit_code = 3


class RestoreFailed(RestoreError):
    """Nothing was restored."""

    code = "restore-failed"
    exit_code = 4


class NotInHistory(TurkuError):
    """History has no such source, snapshot or path, or the machine may not see it. The message names it."""

    code = "not-in-history"
    exit_code = 66
    retryable = False


class CatalogUnusable(TurkuError):
    """The catalog of a source can neither be read nor rebuilt. The history itself is untouched."""

    code = "catalog-unusable"
    exit_code = 72


class NoVolume(TurkuError):
    """A storage has no volume for a machine: none takes new machines, or the machine's own volume is not mounted."""

    code = "no-volume"
    exit_code = 74


class TunnelRefused(TurkuError):
    """The port that a machine named in its request is not the end of its own tunnel."""

    code = "tunnel-refused"
    exit_code = 68


class StorageNotTrusted(TurkuError):
    """A storage shows host keys that this machine does not know and that nobody accepted here."""

    code = "storage-not-trusted"
    exit_code = 67
