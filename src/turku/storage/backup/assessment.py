"""The assessment of a backup: its statistics, findings and incompleteness, as the snapshot's notes keep them."""

from datetime import datetime, timedelta

from turku.policy import anomaly
from turku.policy.anomaly import RunStats
from turku.storage.backup import incomplete
from turku.storage.backup.changed_entries import AttributeComparison
from turku.storage.backup.job import BackupJob, BackupStrategy, SyncResult, compression_choice
from turku.storage.backup.transfers import SourceTransfer
from turku.storage.disk import history, retention_run, snapshot_record
from turku.storage.disk.incompleteness import Incompleteness
from turku.storage.disk.snapshot_notes import Notes
from turku.storage.rsync import stats
from turku.storage.rsync.arguments import preserved_properties
from turku.storage.rsync.change_log import ChangeKind
from turku.storage.rsync.request import TransferOptions

_EMPTY = RunStats(files_before=0, files=0)
"""The statistics of the state before the first backup."""


def attribute_comparison(
    job: BackupJob, options: TransferOptions, earlier: Notes, begin: datetime, compare_attributes_days: float
) -> AttributeComparison:
    """Return how to find changed attributes: by comparing all of them at intervals and when nothing is known."""
    is_kept = options.acls or options.attributes
    compared, longest = earlier.attributes_compared, timedelta(days=compare_attributes_days)
    if not is_kept or compared is None or not timedelta(0) <= begin - compared < longest:
        return AttributeComparison()
    return AttributeComparison(earlier.machine_moment_ns, job.changed_entries)


def notes(source: SourceTransfer, result: SyncResult, begin: datetime) -> Notes:
    """Return the notes of the new snapshot, its findings among them. ``begin`` is that of the run. Raises OSError."""
    earlier, job = source.earlier, source.job
    lost = _incompleteness(source, result)
    run_stats = _stats(source, result)
    attributes_compared = begin if result.compared_all_attributes else earlier.attributes_compared
    preserved = preserved_properties(source.options, source.file_system)
    if not result.compared_all_attributes:
        # Unchanged files have the properties that they had.
        preserved = tuple(each for each in preserved if each in earlier.preserved)
    return Notes(
        period=retention_run.period(job.order, source.configuration.retention),
        stats=run_stats,
        findings=_findings(source, run_stats, lost),
        bytes_per_second=result.transferred.bytes_per_second or earlier.bytes_per_second,
        compress=compression_choice(job.order),
        incomplete=lost,
        machine_moment_ns=job.machine_time_ns,
        # Attributes that are excluded now are compared once they are not.
        attributes_compared=attributes_compared if source.options.acls and source.options.attributes else None,
        preserved=preserved,
        strategy=result.strategy,
        strategy_reason=result.reason,
    )


def _stats(source: SourceTransfer, result: SyncResult) -> RunStats | None:
    """Return the statistics of the run. None if rsync's own are not understood."""
    base, transferred, before = source.base, result.transferred, source.earlier.stats
    if not source.mode.keeps_history:
        return stats.from_run(transferred.statistics, transferred.suffixes, None)
    # With an empty directory to write to, rsync reports every file as new.
    reports_new_files = result.strategy is not BackupStrategy.FULL and before is not None
    found: RunStats | None
    if base is None or (reports_new_files and not result.includes_earlier_run and not result.file_errors.entries):
        found = stats.from_run(transferred.statistics, transferred.suffixes, before or _EMPTY)
    else:
        found = stats.from_trees(source.place.tree(base), result.tree)
    if found is not None and base is not None:
        changed = (each.path for each in source.changes if each.kind is ChangeKind.CHANGED)
        found = stats.with_content_sample(found, changed, source.place.tree(base), result.tree)
    return found


def _findings(source: SourceTransfer, found: RunStats | None, lost: Incompleteness) -> tuple[str, ...]:
    findings: tuple[str, ...] = ()
    place, earlier = source.place, source.earlier
    if found is not None:
        baseline = history.baseline(place, source.configuration.state.timezone)
        thresholds = source.configuration.anomaly.thresholds_of(place.machine_dir.name, place.source)
        findings = anomaly.findings(found, baseline, thresholds=thresholds)
        before = earlier.stats.files if earlier.stats else found.files_before
        findings += incomplete.findings(lost, earlier.incomplete, before, thresholds)
    if source.mode.keeps_history and earlier.needs_review:
        findings = (*findings, f"it is built upon {source.base}, which is quarantined and was not reviewed yet")
    return findings


def _incompleteness(source: SourceTransfer, result: SyncResult) -> Incompleteness:
    base = source.base
    record = snapshot_record.read(source.place, base) if base else None
    before = source.place.tree(base) if base else None
    skipped_devices = result.transferred.skipped_devices_warning
    return incomplete.assess(
        result.file_errors,
        # Without history the only tree still has the old content of entries that did not come.
        before if source.mode.keeps_history else result.tree,
        source.earlier.incomplete,
        record.sync_begin.isoformat(timespec="seconds") if record else "an earlier backup",
        (skipped_devices,) if skipped_devices else (),
    )
