"""The assessment of a backup: its statistics, findings and incompleteness, as the snapshot's notes keep them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from turku.policy import anomaly
from turku.policy.anomaly import RunStats
from turku.storage.backup import incomplete
from turku.storage.backup.changed_entries import AttributeComparison
from turku.storage.backup.job import BackupJob
from turku.storage.backup.order import compression_choice
from turku.storage.backup.sync_result import BackupStrategy, SyncResult
from turku.storage.backup.transfers import SourceTransfer
from turku.storage.config.model import StorageConfig
from turku.storage.disk import history, retention_run, snapshot_record
from turku.storage.disk.incompleteness import Incompleteness
from turku.storage.disk.snapshot_notes import Notes
from turku.storage.rsync import stats
from turku.storage.rsync.arguments import preserved_properties
from turku.storage.rsync.change_log import ChangeKind, ChangeLog
from turku.storage.rsync.request import TransferOptions

_EMPTY = RunStats(files_before=0, files=0)
"""The statistics of the state before the first backup."""


@dataclass(frozen=True)
class Assessment:
    """The assessment of one backup against its base."""

    job: BackupJob
    configuration: StorageConfig
    begin: datetime
    earlier: Notes
    """The notes of the base."""

    def attribute_comparison(self, options: TransferOptions) -> AttributeComparison:
        """Return how to find changed attributes: by comparing all of them at intervals and when nothing is known."""
        is_kept = options.acls or options.attributes
        compared, days = self.earlier.attributes_compared, self.configuration.receiving.compare_attributes_days
        is_recent = compared is not None and timedelta(0) <= self.begin - compared < timedelta(days=days)
        if not (is_kept and is_recent):
            return AttributeComparison()
        return AttributeComparison(self.earlier.machine_moment_ns, self.job.changed_entries)

    def notes(self, source: SourceTransfer, result: SyncResult, changes: ChangeLog) -> Notes:
        """Return the notes of the new snapshot, its findings among them. Raises OSError."""
        earlier, transferred = self.earlier, result.transferred
        lost = self._incompleteness(source, result)
        run_stats = self._stats(source, result, changes)
        return Notes(
            period=retention_run.period(self.job.order, self.configuration.retention),
            stats=run_stats,
            findings=self._findings(source, run_stats, lost),
            bytes_per_second=transferred.bytes_per_second or earlier.bytes_per_second,
            compress=compression_choice(self.job.order),
            incomplete=lost,
            machine_moment_ns=self.job.machine_time_ns,
            attributes_compared=self._attributes_compared(source, result),
            preserved=self._preserved(source, result),
            strategy=result.strategy,
            strategy_reason=result.reason,
        )

    def _stats(self, source: SourceTransfer, result: SyncResult, changes: ChangeLog) -> RunStats | None:
        """Return the statistics of the run. None if rsync's own are not understood."""
        base, transferred = source.base, result.transferred
        if not source.mode.keeps_history:
            return stats.from_run(transferred.statistics, transferred.suffixes, None)
        # With an empty directory to write to, rsync reports every file as new.
        reports_new_files = result.strategy is not BackupStrategy.FULL and self.earlier.stats is not None
        found: RunStats | None
        if base is None or (reports_new_files and not result.includes_earlier_run and not result.file_errors.entries):
            found = stats.from_run(transferred.statistics, transferred.suffixes, self.earlier.stats or _EMPTY)
        else:
            found = stats.from_trees(source.place.tree(base), result.tree)
        if found is not None and base is not None:
            changed = (each.path for each in changes if each.kind is ChangeKind.CHANGED)
            found = stats.with_content_sample(found, changed, source.place.tree(base), result.tree)
        return found

    def _findings(self, source: SourceTransfer, found: RunStats | None, lost: Incompleteness) -> tuple[str, ...]:
        findings: tuple[str, ...] = ()
        if found is not None:
            baseline = history.baseline(source.place, self.configuration.state.timezone)
            thresholds = self.configuration.anomaly.thresholds_of(source.place.machine_dir.name, source.place.source)
            findings = anomaly.findings(found, baseline, thresholds=thresholds)
            before = self.earlier.stats.files if self.earlier.stats else found.files_before
            findings += incomplete.findings(lost, self.earlier.incomplete, before, thresholds)
        if source.mode.keeps_history and self.earlier.needs_review:
            findings = (*findings, f"it is built upon {source.base}, which is quarantined and was not reviewed yet")
        return findings

    def _incompleteness(self, source: SourceTransfer, result: SyncResult) -> Incompleteness:
        base = source.base
        record = snapshot_record.read(source.place, base) if base else None
        before = source.place.tree(base) if base else None
        skipped_devices = result.transferred.skipped_devices_warning
        return incomplete.assess(
            result.file_errors,
            # Without history the only tree still has the old content of entries that did not come.
            before if source.mode.keeps_history else result.tree,
            self.earlier.incomplete,
            record.sync_begin.isoformat(timespec="seconds") if record else "an earlier backup",
            (skipped_devices,) if skipped_devices else (),
        )

    def _attributes_compared(self, source: SourceTransfer, result: SyncResult) -> datetime | None:
        if not (source.options.acls and source.options.attributes):
            # Attributes that are excluded now are compared once they are not.
            return None
        return self.begin if result.compared_all_attributes else self.earlier.attributes_compared

    def _preserved(self, source: SourceTransfer, result: SyncResult) -> tuple[str, ...]:
        now = preserved_properties(source.options, source.file_system)
        # Unchanged files have the properties that they had.
        return now if result.compared_all_attributes else tuple(each for each in now if each in self.earlier.preserved)
