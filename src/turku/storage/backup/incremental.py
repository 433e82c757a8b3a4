"""The incremental strategy: fetch the differences, and assemble the tree from the base and from them.

rsync writes the differences to the staging directory, which shares no file with a snapshot. Our own code then makes the
new tree from the base and the staging directory (``snapshots/assembly.py``).
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import chain

from turku.storage.backup import dry_run
from turku.storage.backup.dry_run import CHANGED_ENTRIES_SECONDS, DryRunResult
from turku.storage.backup.job import BackupStrategy, SyncResult
from turku.storage.backup.transfers import PartialTransfer, SourceTransfer, ignore_entry
from turku.storage.containment import limits
from turku.storage.containment.limits import DIRECTORY_BYTES, SpaceLimitExceeded
from turku.storage.fs.remove import remove_tree
from turku.storage.rsync.change_log import Change, ChangeKind
from turku.storage.rsync.file_errors import FileErrors
from turku.storage.rsync.request import TransferScope, Workspace
from turku.storage.rsync.result import TransferResult
from turku.storage.snapshots import assembly
from turku.storage.snapshots.assembly import HardlinkCopy

_CLEANING_SECONDS = 0.5
_LOG = logging.getLogger(__name__)


def run(source: SourceTransfer, comparison: DryRunResult, copy: HardlinkCopy) -> SyncResult:
    """Return the tree of an incremental run and fill the source's ``changes``.

    If the source changed too much since the dry run, the dry run is made again. Raises BackupFailed, IncrementalFailed.
    """
    try:
        return _fetch_and_assemble(source, comparison, copy)
    except PartialTransfer:
        # A directory that became a file since the dry run. The next dry run reports it.
        source.planned.clear()
        again = dry_run.compare_with_base(source, copy)
        if again.result is None:
            raise
        return _fetch_and_assemble(source, again, copy)


def _fetch_and_assemble(source: SourceTransfer, comparison: DryRunResult, copy: HardlinkCopy) -> SyncResult:
    compared = comparison.result
    if compared is None:
        raise ValueError("there is no dry run")
    workspace = source.mode.prepare(source.base)
    errors = comparison.file_errors
    copy.begin()
    transferred = _fetch(source, workspace, errors)
    if source.damaged:
        _LOG.info(
            "%s: %d files were transferred again, because the stored ones are damaged or differ from the machine's",
            source.place.source,
            len(source.damaged),
        )
    if errors.entries and all(change.path in errors.entries for change in source.planned):
        # Nothing came that the base does not have.
        remove_tree(workspace.directory, lambda: True)
        return unchanged(source, comparison, compared.with_amounts_of(transferred))
    _assemble(source, workspace, copy, transferred, errors)
    return SyncResult(
        compared.with_amounts_of(transferred),
        copy.tree,
        BackupStrategy.INCREMENTAL,
        file_errors=errors,
        compared_all_attributes=comparison.compared_all_attributes,
        includes_earlier_run=workspace.is_resumed,
    )


def unchanged(source: SourceTransfer, comparison: DryRunResult, transferred: TransferResult) -> SyncResult:
    """Return the base's tree as the result of a run without differences."""
    source.changes.lists_every_change = True
    return SyncResult(
        transferred,
        source.place.tree(source.existing_base),
        BackupStrategy.UNCHANGED,
        file_errors=comparison.file_errors,
        compared_all_attributes=comparison.compared_all_attributes,
    )


def _fetch(source: SourceTransfer, workspace: Workspace, errors: FileErrors) -> TransferResult:
    """Fetch the planned entries into the workspace, damaged files and dropped attributes without a basis."""
    with source.dropped_attributes(workspace) as dropped:

        def needs_no_basis(change: Change) -> bool:
            return change.path in source.damaged or (not change.is_file and dropped.drops(change.path))

        transferred = _fetch_with_basis(source, workspace, needs_no_basis, errors)
        others = (each for each in source.planned if each.path not in source.damaged and needs_no_basis(each))
        damaged = (Change(path, ChangeKind.CHANGED) for path in sorted(source.damaged))
        # The stored content of damaged files must not be read, let alone copied.
        return source.fetch_without_basis(workspace, chain(damaged, others), transferred, errors)


def _fetch_with_basis(
    source: SourceTransfer, workspace: Workspace, is_excluded: Callable[[Change], bool], errors: FileErrors
) -> TransferResult:
    """Fetch the planned entries that are not excluded. Files with holes get a run of their own (``full.py``)."""
    with_holes = source.named_files_with_holes(CHANGED_ENTRIES_SECONDS)
    runs: list[tuple[SourceTransfer, Callable[[Change], bool]]] = [(source, lambda _change: True)]
    if with_holes is not None:
        named = with_holes
        runs = [(source.with_options(holes=False), lambda change: change.path not in named)]
        if any(change.path in named for change in source.planned):
            runs.append((source, lambda change: change.path in named))
    transferred: TransferResult | None = None
    for each_source, is_wanted in runs:
        wanted = (each for each in source.planned if is_wanted(each) and not is_excluded(each))
        with each_source.files_from(wanted) as listed:
            fetched = each_source.transfer(workspace, TransferScope(files_from=listed), ignore_entry)
        errors.add(fetched.file_errors)
        if transferred is not None:
            status = transferred.exit_status if transferred.exit_status.is_partial else fetched.exit_status
            fetched = replace(fetched.after(transferred), exit_status=status)
        transferred = fetched
    if transferred is None:
        raise ValueError("there is always one run")
    return transferred


def _assemble(
    source: SourceTransfer, workspace: Workspace, copy: HardlinkCopy, transferred: TransferResult, errors: FileErrors
) -> None:
    """Make the new tree from the copy of the base and the staging directory, and fill the source's ``changes``."""
    planned, changes = source.planned, source.changes

    def add_deleted(path: bytes) -> None:
        changes.add(Change(path, ChangeKind.DELETED))

    # After read errors, an entry that did not come is not taken for deleted unless rsync reports that.
    is_partial = transferred.exit_status.is_partial
    try:
        copy.finish(source.cancellation)
        made = copy.directories + assembly.apply(
            workspace.directory,
            copy.tree,
            planned,
            add_deleted,
            stays=lambda path: is_partial and path not in errors.vanished,
        )
        source.check_directories(made)
    except SpaceLimitExceeded:
        source.mode.discard_staging()
        raise
    limits.record_usage(source.configuration, source.place.machine_dir, made * DIRECTORY_BYTES)
    for change in planned:
        changes.add(change)
    # Only directories are left in the workspace, and no more of them than changed.
    end = source.clock.monotonic_seconds() + _CLEANING_SECONDS
    remove_tree(workspace.directory, lambda: source.clock.monotonic_seconds() < end)
    changes.lists_every_change = changes.lists_every_written_file = True
