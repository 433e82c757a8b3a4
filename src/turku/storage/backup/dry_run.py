"""The dry run: the comparison of the machine with the base snapshot, before anything is transferred."""

from dataclasses import dataclass, field, replace

from turku.core.log import one_line
from turku.storage.backup.job import BackupStrategy
from turku.storage.backup.transfers import OnEntry, SourceTransfer
from turku.storage.rsync import stats
from turku.storage.rsync.change_log import Change, ChangeKind, ItemizedLine
from turku.storage.rsync.file_errors import FileErrors
from turku.storage.rsync.request import TransferScope, Workspace, should_list_first
from turku.storage.rsync.result import COMPLETE, TransferResult
from turku.storage.snapshots.assembly import HardlinkCopy
from turku.storage.snapshots.sharing import find_other_names

CHANGED_ENTRIES_SECONDS = 15.0
"""Time that the agent has to name changed entries."""
NOTHING_DELETED = "nothing was taken for deleted, as too much could not be read"


@dataclass(frozen=True)
class DryRunResult:
    """The result of a dry run, or the reason why it is of no use."""

    result: TransferResult | None = None
    unusable_reason: str = ""
    file_errors: FileErrors = field(default_factory=FileErrors)
    compared_all_attributes: bool = True
    """False if only the attributes of entries that the agent named were compared."""


def compare_with_base(source: SourceTransfer, copy: HardlinkCopy | None) -> DryRunResult:
    """Compare the source with the base and fill its ``planned`` with the differences.

    ``copy`` begins with the first difference. Raises BackupFailed if rsync fails.
    """
    if source.base is None or not source.mode.keeps_history:
        return DryRunResult()
    # A source that changed between the last two backups will have changed again.
    if copy is not None and source.earlier.strategy == BackupStrategy.INCREMENTAL:
        copy.begin()
    planned, damaged = source.planned, set(source.damaged)
    unresolved: list[bytes] = []

    def note(line: ItemizedLine) -> None:
        if copy is not None:
            copy.begin()
        damaged.discard(line.path)
        if line.is_linked and not line.link_target:
            unresolved[:] = [line.path]
        planned.add_line(line)

    # The base is safely on the disk. Only files that an interrupted run left may lack their content.
    source = source.with_options(compare_contents=source.job.order.compare_contents)
    compared, all_attributes, errors = _compare(source, note)
    reason = _unusable_reason(source, compared, unresolved)
    if not reason:
        other_names = _other_names(source)
        if other_names is None:
            reason = "too many files changed to search for their other names"
        else:
            damaged |= other_names
    if reason:
        planned.clear()
        return DryRunResult(unusable_reason=reason)
    for path in sorted(damaged):
        planned.add(Change(path, ChangeKind.CHANGED))
    return DryRunResult(compared, file_errors=errors, compared_all_attributes=all_attributes)


def _compare(source: SourceTransfer, note: OnEntry) -> tuple[TransferResult, bool, FileErrors]:
    """Return the result of the comparison, True if it compared all attributes, and the errors of all its runs."""
    workspace = Workspace(source.place.tree(source.existing_base))
    compared, all_attributes = _compare_attributes_too(source, workspace, note)
    errors = compared.file_errors
    if source.may_be_incomplete(compared):
        # rsync reported no deletions. Asked again with protected paths, it does.
        unreadable_paths = errors.hidden_paths
        if unreadable_paths and errors.can_be_protected:
            source.planned.clear()
            protecting = source.with_options(unreadable_paths=unreadable_paths)
            compared, all_attributes = _compare_attributes_too(protecting, workspace, note)
            errors.add(compared.file_errors)
        elif not errors.can_be_protected:
            errors.add_warning(NOTHING_DELETED)
    return compared, all_attributes, errors


def _unusable_reason(source: SourceTransfer, compared: TransferResult, unresolved: list[bytes]) -> str:
    """Return the reason why the dry run is of no use. Empty if it is usable. Raises BackupFailed if rsync failed."""
    status = compared.exit_status
    is_partial = source.may_be_incomplete(compared)
    if not status.success and not status.is_request_failure and not is_partial:
        raise source.failure(compared)
    if status.meaning != COMPLETE and not is_partial:
        return f"the dry run ended with: {status.meaning}"
    if not compared.all_lines_parsed or stats.from_run(compared.statistics, compared.suffixes, None) is None:
        return "the output of the dry run was not understood"
    if unresolved:
        return f"rsync did not name the file to which {one_line(unresolved[0])} is a hard link"
    return ""


def _compare_attributes_too(source: SourceTransfer, workspace: Workspace, note: OnEntry) -> tuple[TransferResult, bool]:
    """Return the result of a dry run, and True if it compared the attributes of everything.

    Otherwise only the attributes of entries whose change time moved are compared, as the agent names them. If it cannot
    name them, the dry run is made again.
    """
    scope = TransferScope(
        is_dry_run=True,
        lists_first=should_list_first(source.earlier.stats.files if source.earlier.stats else None),
        compares_attributes=source.attribute_comparison.since_ns is None,
    )
    compared = source.run(workspace, scope, note)
    is_usable = compared.exit_status.success or source.may_be_incomplete(compared)
    if scope.compares_attributes or not is_usable:
        return compared, scope.compares_attributes
    paths = _entries_with_changed_attributes(source, compared.seconds)
    if paths is None:
        source.planned.clear()
        again = source.run(workspace, replace(scope, compares_attributes=True), note)
        again.file_errors.add(compared.file_errors)
        return again, True
    if paths:
        with source.files_from(Change(path, ChangeKind.CHANGED) for path in paths) as listed:
            second = source.run(workspace, TransferScope(is_dry_run=True, files_from=listed), note)
        compared.file_errors.add(second.file_errors)
        if not second.exit_status.success:
            compared = replace(compared, exit_status=second.exit_status)
    return compared, False


def _entries_with_changed_attributes(source: SourceTransfer, dry_run_seconds: float) -> list[bytes] | None:
    """Return the entries outside ``planned`` whose attributes may have changed since the base was made.

    Returns None if the agent cannot name them.
    """
    since_ns = source.attribute_comparison.since_ns
    timeout_seconds = max(CHANGED_ENTRIES_SECONDS, 2 * dry_run_seconds)
    named = source.attribute_comparison.changed_entries(timeout_seconds)
    if since_ns is None or named is None or named.since_ns > since_ns:
        return None
    paths = dict.fromkeys(named.paths)
    for change in source.planned:
        paths.pop(change.path, None)
    return list(paths)


def _other_names(source: SourceTransfer) -> set[bytes] | None:
    """Return further names of files that changed while their size and time stayed the same. None if too many changed.

    rsync does not report them, because it compares only the first name of a file.
    """
    if not (source.job.order.compare_contents and source.options.hard_links):
        return set()
    tree = source.place.tree(source.existing_base)
    changed = find_other_names(tree, (each.path for each in source.planned if each.is_file))
    return changed - {each.path for each in source.planned} if changed else changed
