"""The request for one backup of one source, and the report of its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from turku.core.secret import Secret
from turku.protocol.messages import SourceOrder
from turku.storage.backup.changed_entries import ChangedEntries
from turku.storage.rsync.file_errors import FileErrors
from turku.storage.rsync.request import RsyncDaemon
from turku.storage.rsync.result import TransferResult


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
    """Waits this many seconds for the source's files that have holes. Returns None if the agent cannot name them."""

    @property
    def daemon(self) -> RsyncDaemon:
        """The daemon that serves the source."""
        return RsyncDaemon(self.rsync_port, self.source_name, self.username, self.password)


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


class BackupStrategy(StrEnum):
    """The ways in which a run makes its tree."""

    UNCHANGED = "unchanged"
    """Nothing differs from the base, and nothing is transferred."""
    INCREMENTAL = "incremental"
    """The differences are transferred, and the rest is taken from the base."""
    FULL = "full"
    """Everything is compared, and transferred unless the base has it."""
    IN_PLACE = "in-place"
    """rsync changes a tree of its own in place."""


@dataclass(frozen=True)
class SyncResult:
    """A complete tree that is ready to be committed."""

    transferred: TransferResult
    tree: Path
    strategy: BackupStrategy
    reason: str = ""
    """The reason for a full run although there is a base."""
    file_errors: FileErrors = field(default_factory=FileErrors)
    """rsync's messages about single entries, from all runs together."""
    compared_all_attributes: bool = True
    """False if only the attributes of entries that the agent named were compared."""
    includes_earlier_run: bool = False
    """True if earlier runs transferred a part of the tree, so that rsync's statistics are incomplete."""
