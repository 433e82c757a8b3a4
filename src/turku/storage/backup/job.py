"""The request for one backup of one source, what its order asks for, and the report of its outcome.

Every rule of an order is checked again here, because the coordinator may be an older one, or hostile.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from turku.core.secret import Secret
from turku.errors import BackupFailed, InvalidValue
from turku.policy import bandwidth, compression, filters, run_options, snapshot_mode
from turku.policy.run_options import FileProperty
from turku.protocol.messages import SourceOrder
from turku.storage.backup.changed_entries import ChangedEntries
from turku.storage.config.model import ReceivingConfig
from turku.storage.fs import clone, subvolume
from turku.storage.rsync.file_errors import FileErrors
from turku.storage.rsync.request import RsyncDaemon, TransferOptions
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


def mode_name(order: SourceOrder, configuration: ReceivingConfig, machine_dir: Path) -> str:
    """Return the snapshot mode of the source's backup (configuration reference).

    ``auto`` is settled for the volume that holds the machine's directory. Raises BackupFailed for a mode that this
    storage does not have.
    """
    has_large_files = order.large_rotating_files or order.large_modifying_files
    name = snapshot_mode.selected(
        order.snapshot_mode or "", configuration.snapshot_mode, has_large_files=has_large_files
    )
    if name not in snapshot_mode.NAMES:
        raise BackupFailed(
            f"snapshot_mode: {name!r} is none of {', '.join(snapshot_mode.NAMES)}",
            hint="fix the source's snapshot_mode on the machine, or leave it out",
        )
    if name == snapshot_mode.AUTO:
        return snapshot_mode.settled(
            has_large_files=has_large_files,
            allowed=order.allowed_snapshot_modes,
            is_btrfs=lambda: subvolume.is_btrfs(machine_dir),
            can_clone=lambda: clone.can_clone(machine_dir),
        )
    return name


def transfer_options(order: SourceOrder, configuration: ReceivingConfig) -> TransferOptions:
    """Return the options of the order's transfers. Raises InvalidValue with the name of a wrong option."""
    with _naming("filter"):
        rules = [filters.parse_rule(text).text for text in order.filter]
    with _naming("exclude"):
        # After the filter, as existing storages have it: the first rule that matches decides.
        rules += [filters.parse_exclude(text).text for text in order.exclude]
    with _naming("bwlimit"):
        limits = bandwidth.parse(order.bandwidth_windows or order.bwlimit)
    with _naming("not_preserved"):
        omitted = run_options.parse_not_preserved(order.not_preserved)
    return TransferOptions(
        rules=tuple(rules),
        hard_links=order.preserve_hard_links
        or (configuration.preserve_hard_links and FileProperty.HARD_LINKS not in omitted),
        acls=FileProperty.ACLS not in omitted,
        attributes=FileProperty.ATTRIBUTES not in omitted,
        holes=FileProperty.HOLES not in omitted,
        one_file_system=order.one_file_system,
        bandwidth_kib_per_second=limits.constant,
        bandwidth_limits=limits,
        compare_contents=order.compare_contents,
    )


def compression_choice(order: SourceOrder) -> compression.Compression:
    """Return the order's choice of compression. Raises InvalidValue."""
    with _naming("compress"):
        return compression.parse(order.compress or compression.Compression.AUTO)


@contextmanager
def _naming(option: str) -> Iterator[None]:
    """Put the name of the option before the message of an InvalidValue."""
    try:
        yield
    except InvalidValue as error:
        raise InvalidValue(f"{option}: {error.message}", hint=error.hint) from error
