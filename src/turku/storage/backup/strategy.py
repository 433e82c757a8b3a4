"""The choice of a backup strategy.

1. A dry run against the base reports new, changed and deleted entries (``dry_run.py``).
2. Nothing differs: the new snapshot is a link to the base (``unchanged``).
3. The dry run is usable: the differences are fetched, and the tree is assembled (``incremental.py``).
4. Anything else is a full run (``full.py``), with the reason in its report.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from turku.storage import catalog
from turku.storage.backup import full, incremental
from turku.storage.backup.dry_run import DryRunResult
from turku.storage.backup.sync_result import BackupStrategy, SyncResult
from turku.storage.backup.transfers import SourceTransfer, TransferRejected
from turku.storage.rsync.change_log import ChangeLog
from turku.storage.rsync.result import TransferResult
from turku.storage.snapshots.base_copy import HardlinkCopy, IncrementalFailed


def sync(
    source: SourceTransfer,
    comparison: DryRunResult,
    planned: ChangeLog,
    changes: ChangeLog,
    copy: HardlinkCopy | None,
    *,
    indexer: catalog.StreamingIndexer | None = None,
) -> SyncResult:
    """Return a complete tree and fill ``changes``. Raises BackupFailed."""
    reason = comparison.unusable_reason
    if comparison.result is not None and copy is not None:
        try:
            return incremental.run(source, comparison, planned, changes, copy)
        except (IncrementalFailed, TransferRejected) as error:
            reason = str(error)
            changes.clear()
    if copy is not None:
        copy.end()
    return full.run(source, reason, planned, changes, indexer)


def unchanged(
    source: SourceTransfer, comparison: DryRunResult, compared: TransferResult, changes: ChangeLog
) -> SyncResult:
    """Return the base's tree as the result of a run without differences."""
    changes.lists_every_change = True
    return SyncResult(
        compared,
        source.place.tree(source.existing_base),
        BackupStrategy.UNCHANGED,
        file_errors=comparison.file_errors,
        compared_all_attributes=comparison.compared_all_attributes,
    )


def indexer(source: SourceTransfer) -> AbstractContextManager[catalog.StreamingIndexer | None]:
    """Return the indexer that reads a first backup's tree while it is fetched. None if it is of no use."""
    # Without history there is no catalog.
    if source.base is None and source.mode.keeps_history:
        return catalog.stream_index(source.place)
    return nullcontext()
