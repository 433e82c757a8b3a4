"""The request for one backup of one source, and the report of its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from turku.core.secret import Secret
from turku.protocol.messages import SourceOrder
from turku.storage.backup.changed_entries import ChangedEntries


@dataclass(frozen=True)
class BackupJob:
    """The source to back up, the daemon that serves it, and the machine's directory."""

    machine_dir: Path
    """``<volume>/<uuid>``. It exists."""
    source_name: str
    """Already checked by ``turku.policy.names.source_name``."""
    order: SourceOrder
    rsync_port: int
    username: str
    password: Secret
    machine_time_ns: int | None = None
    """The machine's clock when the session began, in Unix nanoseconds. None if its agent does not report it."""
    changed_entries: Callable[[float], ChangedEntries | None] = lambda _timeout_seconds: None
    """The callback of ``AttributeComparison``."""
    files_with_holes: Callable[[float], frozenset[bytes] | None] = lambda _timeout_seconds: None
    """The callback of ``SourceTransfer``."""


@dataclass(frozen=True)
class BackupReport:
    """The outcome of a backup as it is reported to the coordinator. Times are Unix seconds."""

    success: bool
    snapshot: str | None
    summary: str
    time_begin: float
    time_end: float
    findings: tuple[str, ...] = ()
    """Reasons for quarantine: signs that the machine may be compromised, a sentence each (threats M10)."""
    strategy: str = ""
    """The ``BackupStrategy`` of the run. Empty if it failed."""
    strategy_reason: str = ""
    """The reason for a full run although there is a base snapshot."""
    missing_files: int = 0
    """As in ``Incompleteness``."""
    stale_files: int = 0
    """As in ``Incompleteness``."""
    warning_count: int = 0
    """The number of all warnings, including those that ``warnings`` does not list."""
    warnings: tuple[str, ...] = ()
    """Sentences about faults of a backup that was made."""
