"""The sequence of one backup of one source: checks, transfers, commit, retention, report.

1. A dry run against the base reports new, changed and deleted entries (``dry_run.py``).
2. Nothing differs: the new snapshot is a link to the base.
3. The dry run is usable: the differences are fetched, and the tree is assembled (``incremental.py``).
4. Anything else is a full run (``full.py``), with the reason in its report.
"""

import logging
import secrets
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from turku.core.cancellation import NEVER, Cancellation
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.configuration.declaration import with_values
from turku.core.log import one_line
from turku.errors import BackupFailed, LockHeld, TurkuError
from turku.policy import names
from turku.storage import catalog
from turku.storage.backup import assessment, dry_run, full, incomplete, incremental
from turku.storage.backup.dry_run import DryRunResult
from turku.storage.backup.incremental import unchanged
from turku.storage.backup.job import (
    BackupJob,
    BackupReport,
    BackupStrategy,
    SyncResult,
    compression_choice,
    mode_name,
    transfer_options,
)
from turku.storage.backup.transfers import SourceTransfer, TransferRejected
from turku.storage.config.model import StorageConfig
from turku.storage.containment import limits
from turku.storage.disk import deletion, dirty_flag, history, retention_rules, retention_run, snapshot_notes, trash
from turku.storage.disk.snapshot_notes import NO_NOTES, Notes
from turku.storage.disk.snapshot_record import SnapshotRecord
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import timestamp_range
from turku.storage.fs import tree as fs
from turku.storage.integrity import damage
from turku.storage.rsync import version
from turku.storage.rsync.change_log import ChangeLog
from turku.storage.rsync.file_system_support import probe_file_system
from turku.storage.rsync.request import TransferOptions, should_compress
from turku.storage.rsync.result import COMPLETE, SUMMARY_LIMIT
from turku.storage.snapshots import MODES, SnapshotMode
from turku.storage.snapshots.assembly import HardlinkCopy, IncrementalFailed

COLLECT_SECONDS = 0.5
"""Time for deleting in a session. The machine waits for it, while ``turku-storage gc`` has the time."""
COLLECT_AFTER_FAILURE_SECONDS = 5.0
_LOGGED_WARNINGS = 25
_NAMES_PER_SECOND = 100
"""The number of names tried for one second, before the next second is taken."""
_LOGGED_STATISTICS = ("Number of files:", "Number of regular files transferred:", "Total transferred file size:")
_LOG = logging.getLogger(__name__)


def back_up(
    job: BackupJob, configuration: StorageConfig, *, clock: Clock = SYSTEM_CLOCK, cancellation: Cancellation = NEVER
) -> BackupReport:
    """Back up a source, apply its retention, and return the report. A failed backup is a report, too.

    Raises whatever ``cancellation`` raises as long as there is no snapshot, and no error of the domain.
    """
    begin = clock.now()
    try:
        return _BackupRun(job, configuration, clock, begin, cancellation).run()
    except TurkuError as error:
        summary = "\n".join(part for part in (error.message, error.details, error.hint) if part)
    except OSError as error:
        summary = f"{error.strerror or error}" + (f": {error.filename!r}" if error.filename else "")
    summary = "\n".join(one_line(line) for line in summary.splitlines())[:SUMMARY_LIMIT]
    _LOG.error("%s: backup failed: %s", job.source_name, "; ".join(summary.splitlines()))
    return BackupReport(
        success=False, snapshot=None, summary=summary, time_begin=begin.timestamp(), time_end=clock.now().timestamp()
    )


@dataclass(frozen=True)
class _Committed:
    """A backup that is committed."""

    snapshot: str | None
    """None in the mode without history."""
    result: SyncResult
    notes: Notes
    warnings: tuple[str, ...] = ()


class _BackupRun:
    """One run for one source, under the source's lock."""

    def __init__(
        self, job: BackupJob, configuration: StorageConfig, clock: Clock, begin: datetime, cancellation: Cancellation
    ) -> None:
        self._cancellation = cancellation
        self._job = job
        self._configuration = _with_quota(configuration, job.order.quota_bytes)
        self._clock = clock
        self._begin = begin
        self._source = names.source_name(job.source_name)
        self._place = SourceDirectory(job.machine_dir, self._source)

    def run(self) -> BackupReport:
        try:
            # In the machine's directory, so that two storages' configurations on one volume exclude each other too.
            with fs.locked(self._job.machine_dir, f".{self._source}"):
                try:
                    return self._run()
                except (TurkuError, OSError):
                    self._collect_after_failure()
                    raise
        except LockHeld as error:
            raise BackupFailed(f"another run is backing up {self._source}", hint=error.hint) from error

    def _run(self) -> BackupReport:
        version.require_supported(self._configuration.receiving)
        mode = MODES[mode_name(self._job.order, self._configuration.receiving, self._job.machine_dir)](self._place)
        run_limits = self._run_limits(mode)
        options = transfer_options(self._job.order, self._configuration.receiving)
        if dirty_flag.unclean_shutdown(self._place):
            _LOG.warning("%s: this storage went down during a run, so contents are compared", self._source)
            options = replace(options, compare_contents=True)
        if mode.keeps_history:
            mode.tidy()
        zone = self._configuration.state.timezone
        warnings = _clock_warnings(history.note_dates_ahead(self._place, zone, now=self._begin))
        newest = history.base(self._place, zone, now=self._begin)
        base = newest.name if newest else None
        _LOG.info("%s: backup begins (mode %s, base %s)", self._source, mode.name, base or "none")
        committed = self._back_up(mode, base, options, run_limits)
        end = self._clock.now()
        report = self._report(committed, warnings, end, keeps_history=mode.keeps_history)
        self._forget_altered()
        self._apply_retention(mode, committed.snapshot, end)
        return report

    def _run_limits(self, mode: SnapshotMode) -> limits.RunLimits:
        """Return the limits of the run. Raises BackupFailed if the run must wait."""
        if limits.lacks_space(self._configuration.disk, self._job.machine_dir):
            # The files of a killed run may be what takes the space.
            mode.discard_staging()
        try:
            return limits.run_limits(self._configuration, self._job.machine_dir, clock=self._clock)
        except BackupFailed:
            # Deleted snapshots may be what takes the space.
            self._collect(mode)
            raise

    def _back_up(
        self, mode: SnapshotMode, base: str | None, options: TransferOptions, run_limits: limits.RunLimits
    ) -> _Committed:
        """Transfer the source and commit the result."""
        job, place = self._job, self._place
        earlier = snapshot_notes.read(place, base) if base else NO_NOTES
        days = self._configuration.receiving.compare_attributes_days
        spool = place.machine_dir
        with ChangeLog(spool) as planned, ChangeLog(spool) as changes:
            source = SourceTransfer(
                job=job,
                place=place,
                configuration=self._configuration,
                mode=mode,
                options=replace(options, compress=should_compress(compression_choice(job.order), earlier)),
                run_limits=run_limits,
                file_system=probe_file_system(self._configuration, spool),
                base=base,
                earlier=earlier,
                damaged=damage.to_fetch(place),
                attribute_comparison=assessment.attribute_comparison(job, options, earlier, self._begin, days),
                planned=planned,
                changes=changes,
                clock=self._clock,
                cancellation=self._cancellation,
            )
            with source.hardlink_copy() as copy:
                self._cancellation.check()
                comparison = dry_run.compare_with_base(source, copy)
                self._cancellation.check()
                if comparison.result is None or planned:
                    return self._sync_and_commit(source, comparison, copy)
                if copy is not None:
                    copy.end()
                return self._commit_unchanged(source, unchanged(source, comparison, comparison.result))

    def _sync_and_commit(
        self, source: SourceTransfer, comparison: DryRunResult, copy: HardlinkCopy | None
    ) -> _Committed:
        with dirty_flag.writing(self._place), _indexer(source) as indexer:
            result = _sync(source, comparison, copy, indexer)
            self._cancellation.check()
            if result.strategy is BackupStrategy.UNCHANGED:
                return self._commit_unchanged(source, result)
            record = self._record(source, result, source.base)
            at_limit = timestamp_range.DatesAtLimit(timestamp_range.date_range(self._place.machine_dir))
            self._index(source, record, result, indexer=indexer, at_limit=at_limit)
            snapshot = source.mode.commit(record, result.tree)
            return _Committed(snapshot, result, record.notes, at_limit.sentences)

    def _commit_unchanged(self, source: SourceTransfer, result: SyncResult) -> _Committed:
        record = self._record(source, result, source.existing_base)
        self._index(source, record, result)
        snapshot = source.mode.commit_unchanged(record, source.existing_base)
        with suppress(OSError):
            dirty_flag.forget_if_nothing_is_left(self._place)
        return _Committed(snapshot, result, record.notes)

    def _index(
        self,
        source: SourceTransfer,
        record: SnapshotRecord,
        result: SyncResult,
        *,
        indexer: catalog.StreamingIndexer | None = None,
        at_limit: timestamp_range.DatesAtLimit | None = None,
    ) -> None:
        """Add the snapshot's entries to the catalog, just before the snapshot gets its name."""
        if source.mode.keeps_history:
            catalog.record(
                self._place,
                name=record.name,
                base=record.base,
                tree=result.tree,
                changes=source.changes,
                moment=record.sync_begin,
                zone=self._configuration.state.timezone,
                indexer=indexer,
                dates=at_limit,
            )
        self._cancellation.check()

    def _record(self, source: SourceTransfer, result: SyncResult, base: str | None) -> SnapshotRecord:
        """Return the record of a new snapshot with an unused name."""
        notes = assessment.notes(source, result, self._begin)
        finish = self._clock.now()
        zone = self._configuration.state.timezone
        begin = self._begin.astimezone(zone)
        taken = [each.name for each in history.stored_snapshots(self._place, zone)]
        named = begin
        while True:
            for _ in range(_NAMES_PER_SECOND):
                name = names.new_snapshot_name(self._source, named, secrets.token_hex(2))
                # Of two names with one time, the later snapshot's name sorts last, because listings sort by name.
                second = name.rpartition("_")[0]
                is_in_order = all(each < name for each in taken if each.rpartition("_")[0] == second)
                if is_in_order and not fs.exists(self._place.snapshot(name)):
                    return SnapshotRecord(name, base, begin, finish.astimezone(zone), notes)
            named += timedelta(seconds=1)

    def _report(
        self, committed: _Committed, warnings: tuple[str, ...], end: datetime, *, keeps_history: bool
    ) -> BackupReport:
        """Log the outcome of a committed backup and return its report."""
        transferred, notes = committed.result.transferred, committed.notes
        _LOG.info(
            "%s: %s in %.1f s; %s",
            self._source,
            f"snapshot {committed.snapshot} ({notes.strategy})" if committed.snapshot else "synced in place",
            (end - self._begin).total_seconds(),
            "; ".join(line for line in transferred.statistics if line.startswith(_LOGGED_STATISTICS)),
        )
        if transferred.exit_status.meaning != COMPLETE:
            _LOG.warning("%s: %s", self._source, transferred.exit_status.meaning)
        lost = notes.incomplete
        warnings = (*warnings, *committed.warnings, *incomplete.warnings(lost))
        for warning in warnings[:_LOGGED_WARNINGS]:
            _LOG.warning("%s: %s", self._source, warning)
        summary = "\n".join((*warnings, transferred.summary))[:SUMMARY_LIMIT]
        if notes.findings:
            warning = _quarantine_warning(notes.findings, keeps_history=keeps_history)
            _LOG.warning("%s: %s", self._source, warning)
            summary = f"{warning}\n{summary}"[:SUMMARY_LIMIT]
        return BackupReport(
            success=True,
            snapshot=committed.snapshot,
            summary=summary,
            time_begin=self._begin.timestamp(),
            time_end=end.timestamp(),
            findings=notes.findings,
            strategy=notes.strategy,
            strategy_reason=notes.strategy_reason,
            missing_files=lost.missing_files,
            stale_files=lost.stale_files,
            warning_count=len(warnings) - len(lost.warnings) + lost.warning_count,
            warnings=warnings,
        )

    def _forget_altered(self) -> None:
        try:
            damage.forget_altered(self._place)
        except OSError as error:
            # The files are transferred once more.
            _LOG.warning("%s: %s", self._source, error)

    def _apply_retention(self, mode: SnapshotMode, snapshot: str | None, now: datetime) -> None:
        # The backup is made: any failure from here on is a warning.
        configuration = self._configuration
        try:
            quarantined = history.awaiting_review(self._place, configuration.state.timezone)
            if quarantined:
                _LOG.warning(
                    "%s: no snapshot is removed while %d quarantined snapshots, the first of them %s, await review "
                    "(turku-storage quarantine)",
                    self._source,
                    len(quarantined),
                    quarantined[0].name,
                )
            else:
                if snapshot is not None:
                    retention_run.apply(self._place, self._job.order, configuration, now=now, newest_name=snapshot)
                trash.empty(self._place, removed_until=now - timedelta(days=configuration.retention.trash_days))
                catalog.forget(self._place, zone=configuration.state.timezone)
            self._collect(mode)
            trash.remove_stray_records(self._place)
            retention_rules.record(self._place, self._job.order)
        except (TurkuError, OSError) as error:
            _LOG.warning("%s: retention: %s", self._source, error)

    def _collect(self, mode: SnapshotMode) -> None:
        # Machines are waiting. ``turku-storage gc`` deletes the rest in the background.
        end = self._clock.monotonic_seconds() + COLLECT_SECONDS
        mode.collect(lambda: self._clock.monotonic_seconds() < end)

    def _collect_after_failure(self) -> None:
        """Delete the leftovers of failed and killed runs for a while, because the next success may be far off."""
        end = self._clock.monotonic_seconds() + COLLECT_AFTER_FAILURE_SECONDS
        with suppress(TurkuError, OSError):
            deletion.collect(self._place, lambda: self._clock.monotonic_seconds() < end)
            deletion.remove_without_data(self._place)


def _sync(
    source: SourceTransfer,
    comparison: DryRunResult,
    copy: HardlinkCopy | None,
    indexer: catalog.StreamingIndexer | None,
) -> SyncResult:
    """Return a complete tree and fill the source's ``changes``. Raises BackupFailed."""
    reason = comparison.unusable_reason
    if comparison.result is not None and copy is not None:
        try:
            return incremental.run(source, comparison, copy)
        except (IncrementalFailed, TransferRejected) as error:
            reason = str(error)
            source.changes.clear()
    if copy is not None:
        copy.end()
    return full.run(source, reason, indexer)


def _indexer(source: SourceTransfer) -> AbstractContextManager[catalog.StreamingIndexer | None]:
    """Return the indexer that reads a first backup's tree while it is fetched. None if it is of no use."""
    # Without history there is no catalog.
    if source.base is None and source.mode.keeps_history:
        return catalog.stream_index(source.place)
    return nullcontext()


def _with_quota(configuration: StorageConfig, quota_bytes: int | None) -> StorageConfig:
    """Return the configuration with the coordinator's quota if that is the smaller one."""
    quotas = [quota for quota in (configuration.disk.machine_quota_bytes, quota_bytes) if quota is not None]
    return with_values(configuration, machine_quota_bytes=min(quotas, default=None))


def _clock_warnings(ahead: tuple[str, ...]) -> tuple[str, ...]:
    """Return the warning about snapshots that are dated in the future."""
    if not ahead:
        return ()
    count = "1 snapshot is" if len(ahead) == 1 else f"{len(ahead)} snapshots are"
    warning = (
        f"{count} dated in the future, the last of them {ahead[-1]}: the clock of this storage is wrong, or was "
        "when they were made; they do not count as the latest"
    )
    return (warning,)


def _quarantine_warning(findings: tuple[str, ...], *, keeps_history: bool) -> str:
    consequence = (
        "it is quarantined, and no snapshot of this source is removed until it is reviewed (turku-storage quarantine)"
        if keeps_history
        else "this source has no history"
    )
    return f"ANOMALY: {'; '.join(findings)}; {consequence}"
