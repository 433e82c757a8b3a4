"""The result of the transfers of one backup: a complete tree, and the strategy that made it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from turku.storage.rsync.file_errors import FileErrors
from turku.storage.rsync.result import TransferResult


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
