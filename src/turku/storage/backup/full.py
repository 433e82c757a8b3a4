"""The full strategy: rsync compares everything, and transfers what no tree on the storage has.

A first run fetches everything, and its staging directory becomes the tree. So does a run whose dry run was of no use.
Files that did not change then become the base's own files again. Modes that share blocks, and the mode without history,
have rsync change a tree of their own in place.
"""

import logging
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from turku.errors import BackupFailed
from turku.storage import catalog
from turku.storage.backup.dry_run import NOTHING_DELETED
from turku.storage.backup.job import BackupStrategy, SyncResult
from turku.storage.backup.transfers import SourceTransfer, nonexistent_name
from turku.storage.fs import tree as fs
from turku.storage.rsync.change_log import Change, ChangeKind
from turku.storage.rsync.file_errors import FileErrors
from turku.storage.rsync.request import WHOLE_SOURCE, TransferScope, Workspace
from turku.storage.rsync.result import TransferResult
from turku.storage.snapshots import assembly, block_sharing, sharing

_FILES_WITH_HOLES_SECONDS = 60.0
"""Time that the agent has to name files with holes. A full run that looks for holes in all files takes much longer."""
_LOG = logging.getLogger(__name__)


def run(source: SourceTransfer, reason: str, indexer: catalog.StreamingIndexer | None) -> SyncResult:
    """Return the tree of a full run and fill the source's ``changes``.

    ``reason`` is the reason why the run is full, ``indexer`` reads an entirely new tree while it is fetched. Raises
    BackupFailed.
    """
    changes = source.changes
    workspace = source.mode.prepare(source.base)
    has_earlier_files = workspace.is_resumed or len(workspace.basis) > (source.base is not None)
    if indexer is not None and not has_earlier_files:
        indexer.begin(workspace.directory, changes, has_attributes=source.file_system.fake_super)
    is_in_place = source.mode.shares_blocks or not source.mode.keeps_history
    if source.damaged:
        # Neither the files of the workspace nor those of another tree may stand for damaged ones.
        workspace = replace(workspace, basis=())
        if is_in_place:
            assembly.remove(workspace.directory, source.damaged)
    base_to_share = None if is_in_place else source.base
    if base_to_share is not None:
        _LOG.warning("%s: this is a full run: %s", source.place.source, reason)
    try:
        transferred, errors = _fetch(source, workspace, keeps_deleted=is_in_place or has_earlier_files)
    except BackupFailed as error:
        if reason:
            error.details = "\n".join(part for part in (f"it was a full run: {reason}", error.details) if part)
        raise
    built = workspace.directory
    if base_to_share is not None:
        built = _share_with_base(source, base_to_share, built, transferred, errors)
    # In an empty staging directory rsync deletes nothing, so it reports no deletions.
    reports_deletions = source.base is None or source.mode.shares_blocks
    changes.lists_every_change = transferred.all_lines_parsed and reports_deletions and not has_earlier_files
    # A file of an earlier run may have the size and time of the base's by now, so that this run does not report it.
    changes.lists_every_written_file = transferred.all_lines_parsed and not has_earlier_files
    return SyncResult(
        transferred,
        built,
        BackupStrategy.IN_PLACE if is_in_place else BackupStrategy.FULL,
        reason,
        file_errors=errors,
        includes_earlier_run=has_earlier_files or transferred.was_restarted,
    )


def _fetch(source: SourceTransfer, workspace: Workspace, *, keeps_deleted: bool) -> tuple[TransferResult, FileErrors]:
    """Fetch the whole source. ``keeps_deleted`` means that deleted entries may still be in the workspace."""
    last_source, transferred = _fetch_everything(source, workspace)
    errors = transferred.file_errors
    if transferred.exit_status.is_partial and keeps_deleted:
        _remove_deleted(last_source, replace(workspace, is_new=False), errors)
    with source.dropped_attributes(workspace) as dropped:
        again = (Change(path, ChangeKind.CHANGED) for path in dropped.dropped_in(workspace.directory))
        return source.fetch_without_basis(workspace, again, transferred, errors), errors


def _fetch_everything(source: SourceTransfer, workspace: Workspace) -> tuple[SourceTransfer, TransferResult]:
    """Fetch the whole source. Return the options for further runs over the same tree, and the result.

    With ``--sparse`` rsync writes each kilobyte by itself, which takes twice as long. In an existing file it makes a
    hole for each few zeros, so that the file no longer shares those blocks with earlier snapshots. So files that have
    holes are fetched first and by themselves if the machine names them. If it does not, large files that changed in
    place are. In existing files our own code makes new holes.
    """
    # Without history this is the only copy, so it must not stay incomplete for two runs.
    with_holes = source.named_files_with_holes(_FILES_WITH_HOLES_SECONDS) if source.mode.keeps_history else None
    writes_in_place = workspace.writes_in_place and source.file_system.opens_read_only_files
    if not source.options.holes or (with_holes is None and not writes_in_place):
        return source, source.transfer(workspace, WHOLE_SOURCE, source.changes.add_line)
    paths: Iterable[bytes] = with_holes or ()
    if with_holes is None:
        paths = (each.path for each in source.planned if each.is_file and not each.link_target)
    in_place = block_sharing.large_files(workspace.directory, paths) if writes_in_place else []
    sparse, plain = source, source.with_options(holes=False)
    if with_holes is None:
        first, later, listed_first = plain, sparse, in_place
    else:
        first, later, listed_first = sparse, plain, sorted(with_holes.difference(in_place))
    # A further name of a file might be written through, if it belonged to another file by the time of the second run.
    first = first.with_options(hard_links=False)
    with ExitStack() as stack:
        before = None
        if listed_first:
            listed = stack.enter_context(source.files_from(Change(path, ChangeKind.CHANGED) for path in listed_first))
            before = (first, TransferScope(files_from=listed, compares_attributes=False))
        transferred = later.transfer(workspace, WHOLE_SOURCE, source.changes.add_line, before=before)
    block_sharing.punch_holes(workspace.directory, in_place)
    return later, transferred


def _remove_deleted(source: SourceTransfer, workspace: Workspace, errors: FileErrors) -> None:
    """Remove deleted entries, which rsync does not do after a read error. Unreadable paths stay as they are."""
    if not errors.can_be_protected:
        errors.add_warning(NOTHING_DELETED)
        return
    protecting = source.with_options(unreadable_paths=errors.hidden_paths or (nonexistent_name(),))
    later = protecting.transfer(workspace, WHOLE_SOURCE, source.changes.add_line)
    errors.add(later.file_errors)


def _share_with_base(
    source: SourceTransfer, base: str, fetched: Path, transferred: TransferResult, errors: FileErrors
) -> Path:
    """Make unchanged files of the fetched tree the base's own files. Return the tree's new path."""
    # From here on the tree shares files with the base: nobody may write to the remains of a killed run.
    source.mode.discard_assembly()
    built = source.place.assembling
    fs.move_directory(fetched, built)
    base_tree = source.place.tree(base)
    compares_contents = source.options.compare_contents or bool(source.damaged)
    sharing.share_unchanged(base_tree, built, compares_contents=compares_contents)
    if errors.unnamed_count:
        raise BackupFailed(
            f"{transferred.exit_status.meaning}, and rsync did not name them", details="\n".join(transferred.last_lines)
        )
    assembly.take_from_base(base_tree, built, errors.entries)
    return built
