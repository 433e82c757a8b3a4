"""The tree of errors: one class is one kind of failure, one stable code and one exit code.

Exit codes follow sysexits(3) where it has a fitting one; docs/reference/errors.md lists them and a test compares.
A message says what happened and where; ``details`` holds evidence (the last lines a program printed); ``hint``
says what to do about it.
"""

from __future__ import annotations

from typing import ClassVar


class TurkuError(Exception):
    """A failure we foresaw, worded for the person who must act on it."""

    code: ClassVar[str] = "turku"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, details: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.hint = hint


class UsageError(TurkuError):
    """The command line does not make sense."""

    code = "usage"
    exit_code = 64


class InvalidValue(TurkuError):
    """A value is not valid: a name, key, schedule, retention or filter rule. The message says what would be."""

    code = "invalid-value"
    exit_code = 65


class MalformedMessage(TurkuError):
    """A message of the protocol does not have the shape the contract gives it; the message names the field."""

    code = "malformed-message"
    exit_code = 76


class ApiUnreachable(TurkuError):
    """The coordinator could not be asked: network, TLS, time-out, or an answer that is not ours."""

    code = "api-unreachable"
    exit_code = 69


class ApiRefused(TurkuError):
    """The coordinator answered with a refusal."""

    code = "api-refused"
    exit_code = 77

    def __init__(self, message: str, *, status: int, details: str = "", hint: str = "") -> None:
        super().__init__(message, details=details, hint=hint)
        self.status = status


class CommandFailed(TurkuError):
    """A program we started could not be started, failed, or did not end in time."""

    code = "command-failed"
    exit_code = 70


class ConfigurationError(TurkuError):
    """The configuration cannot be used; the message lists every fault with file and key."""

    code = "configuration"
    exit_code = 78


class LockHeld(TurkuError):
    """Another run of the same program holds the lock."""

    code = "lock-held"
    exit_code = 75


class DurableWriteFailed(TurkuError):
    """A file that must survive could not be written: no space, no permission, a read-only file system."""

    code = "write-failed"
    exit_code = 73


class BackupFailed(TurkuError):
    """One or more backups of a session failed; each was reported by itself."""

    code = "backup-failed"
    exit_code = 2


class RestoreIncomplete(TurkuError):
    """Some of what was to be restored is back, the rest is not, or is not what was backed up."""

    code = "restore-incomplete"
    exit_code = 3


class RestoreFailed(TurkuError):
    """Nothing was restored."""

    code = "restore-failed"
    exit_code = 4


class NotInHistory(TurkuError):
    """There is no such source, snapshot or path in what is kept, or it must not be seen; the message names it."""

    code = "not-in-history"
    exit_code = 66


class CatalogUnusable(TurkuError):
    """The catalog of a source's history can neither be read nor made anew; the history itself is untouched."""

    code = "catalog-unusable"
    exit_code = 72


class NoVolume(TurkuError):
    """A storage has no place for a machine: no volume takes new machines, or the machine's own is not there."""

    code = "no-volume"
    exit_code = 74


class TunnelRefused(TurkuError):
    """The port that a machine named in its request is not the end of its own tunnel."""

    code = "tunnel-refused"
    exit_code = 68


class StorageNotTrusted(TurkuError):
    """A storage shows host keys that this machine does not know; nobody accepted them here."""

    code = "storage-not-trusted"
    exit_code = 67
