"""One backup of one source: rsync, commit, retention; what the session calls and reports."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from turku.core.cancellation import NEVER, Cancellation
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.configuration.declaration import with_values
from turku.core.log import one_line
from turku.core.secret import Secret
from turku.errors import BackupFailed, InvalidValue, LockHeld, TurkuError
from turku.policy import anomaly, bandwidth, compression, filters, names, run_options, snapshot_mode
from turku.policy.anomaly import RunStats
from turku.protocol.messages import SourceOrder
from turku.storage import catalog
from turku.storage.backup import incomplete
from turku.storage.backup.changed_entries import ChangedEntries
from turku.storage.backup.strategy import AttributeComparison, BackupStrategy, DryRunResult, Sync, SyncResult
from turku.storage.config.model import StorageConfig
from turku.storage.containment import limits
from turku.storage.disk import (
    deletion,
    dirty_flag,
    history,
    retention_rules,
    retention_run,
    snapshot_notes,
    snapshot_record,
    trash,
)
from turku.storage.disk.incompleteness import Incompleteness
from turku.storage.disk.snapshot_notes import NO_NOTES, Notes
from turku.storage.disk.snapshot_record import SnapshotRecord
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import timestamp_range
from turku.storage.fs import tree as fs
from turku.storage.integrity import damage
from turku.storage.rsync import stats, version
from turku.storage.rsync.arguments import preserved_properties
from turku.storage.rsync.change_log import ChangeKind, ChangeLog
from turku.storage.rsync.file_system_support import probe_file_system
from turku.storage.rsync.request import RsyncDaemon, TransferOptions, should_compress
from turku.storage.rsync.result import SUMMARY_LIMIT, TransferResult
from turku.storage.snapshots import MODES, SnapshotMode, choose
from turku.storage.snapshots.assembly import HardlinkCopy

SWEEP_SECONDS = 0.5
"""For how long a session removes what left history: the machine waits for it, ``turku-storage gc`` has the time."""
SWEEP_AFTER_FAILURE_SECONDS = 5.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class BackupJob:
    """What is to be backed up from where into which machine's directory."""

    machine_dir: Path
    """``<volume>/<uuid>``; it exists."""
    source_name: str
    """Already checked by ``turku.policy.names.source_name``."""
    order: SourceOrder
    rsync_port: int
    username: str
    password: Secret
    machine_time_ns: int | None = None
    """The machine's clock when the session began, in Unix nanoseconds; None where its agent does not tell."""
    changed_entries: Callable[[float], ChangedEntries | None] = lambda _timeout_seconds: None
    """``strategy.AttributeLook``."""
    files_with_holes: Callable[[float], frozenset[bytes] | None] = lambda _timeout_seconds: None
    """``strategy.Sync``."""


@dataclass(frozen=True)
class BackupReport:
    """What is reported to the coordinator; times are Unix seconds."""

    success: bool
    snapshot: str | None
    summary: str
    time_begin: float
    time_end: float
    findings: tuple[str, ...] = ()
    """What makes it look as if the machine had been taken over, a sentence each (threats M10)."""
    strategy: str = ""
    """How it was made (``strategy.Strategy``); empty where it failed."""
    strategy_reason: str = ""
    """Why everything was looked at although there was a snapshot to build upon."""
    missing_files: int = 0
    stale_files: int = 0
    """Both: ``Incompleteness``."""
    warning_count: int = 0
    """Of ``warnings``, and those that are not in it."""
    warnings: tuple[str, ...] = ()
    """Sentences about what is not as it should be, although the backup was made."""


def back_up(
    job: BackupJob, configuration: StorageConfig, *, clock: Clock = SYSTEM_CLOCK, cancellation: Cancellation = NEVER
) -> BackupReport:
    """How the backup went, retention included. A backup that fails is an outcome; nothing of the domain is raised.

    What ``cancellation`` raises is, as long as there is no snapshot.
    """
    begin = clock.now()
    try:
        return _BackupRun(job, configuration, clock, begin, cancellation).outcome()
    except TurkuError as error:
        summary = "\n".join(part for part in (error.message, error.details, error.hint) if part)
    except OSError as error:
        summary = f"{error.strerror or error}" + (f": {error.filename!r}" if error.filename else "")
    summary = "\n".join(one_line(line) for line in summary.splitlines())[:SUMMARY_LIMIT]
    _LOG.error("%s: backup failed: %s", job.source_name, "; ".join(summary.splitlines()))
    return BackupReport(
        success=False,
        snapshot=None,
        summary=summary,
        time_begin=begin.timestamp(),
        time_end=clock.now().timestamp(),
    )


def mode_name(order: SourceOrder, configuration: StorageConfig, machine_dir: Path) -> str:
    """Return the snapshot mode of the source's backup (contract, sections 2 and 5).

    ``auto`` is settled for the volume that holds the machine's directory. Raises BackupFailed for a mode that this
    storage does not have.
    """
    has_large_files = order.large_rotating_files or order.large_modifying_files
    name = snapshot_mode.selected(
        order.snapshot_mode or "", configuration.receiving.snapshot_mode, has_large_files=has_large_files
    )
    if name not in snapshot_mode.NAMES:
        raise BackupFailed(
            f"snapshot_mode: {name!r} is none of {', '.join(snapshot_mode.NAMES)}",
            hint="fix the source's snapshot_mode on the machine, or leave it out",
        )
    if name == snapshot_mode.AUTO:
        return choose(machine_dir, has_large_files=has_large_files, allowed=order.allowed_snapshot_modes)
    return name


def selection(order: SourceOrder, configuration: StorageConfig) -> TransferOptions:
    """What the order selects. Every rule is checked again here: a coordinator may be an older one, or hostile.

    Raises InvalidValue naming the option.
    """
    with _naming("filter"):
        rules = [filters.parse_rule(text).text for text in order.filter]
    with _naming("exclude"):
        # After the filter, as existing storages have it: the first rule that matches decides.
        rules += [filters.parse_exclude(text).filter_text for text in order.exclude]
    with _naming("bwlimit"):
        found = bandwidth.parse(order.bandwidth_windows or order.bwlimit)
    with _naming("not_preserved"):
        omitted = run_options.parse_not_preserved(order.not_preserved)
    return TransferOptions(
        rules=tuple(rules),
        hard_links=order.preserve_hard_links
        or (configuration.receiving.preserve_hard_links and run_options.FileProperty.HARD_LINKS not in omitted),
        acls=run_options.FileProperty.ACLS not in omitted,
        attributes=run_options.FileProperty.ATTRIBUTES not in omitted,
        holes=run_options.FileProperty.HOLES not in omitted,
        one_file_system=order.one_file_system,
        bandwidth_kib_per_second=found.constant,
        bandwidth_limits=found,
        compare_contents=order.compare_contents,
    )


@contextmanager
def _naming(option: str) -> Iterator[None]:
    try:
        yield
    except InvalidValue as error:
        raise InvalidValue(f"{option}: {error.message}", hint=error.hint) from error


@dataclass(frozen=True)
class _Committed:
    """A backup that is committed."""

    snapshot: str | None
    transferred: TransferResult
    noted: Notes
    strategy: BackupStrategy
    reason: str = ""
    warnings: tuple[str, ...] = ()


class _BackupRun:
    def __init__(
        self, job: BackupJob, configuration: StorageConfig, clock: Clock, begin: datetime, cancellation: Cancellation
    ) -> None:
        self._cancellation = cancellation
        self._job = job
        self._configuration = configuration = _with_quota(configuration, job.order.quota_bytes)
        self._clock = clock
        self._begin = begin
        self._source = names.source_name(job.source_name)
        self._place = SourceDirectory(job.machine_dir, self._source)

    def outcome(self) -> BackupReport:
        try:
            # In the machine's directory, so that two storages' configurations on one volume exclude each other too.
            with fs.locked(self._job.machine_dir, f".{self._source}"):
                try:
                    return self._outcome()
                except (TurkuError, OSError):
                    self._clean_up_after_failure()
                    raise
        except LockHeld as error:
            raise BackupFailed(f"another run is backing up {self._source}", hint=error.hint) from error

    def _outcome(self) -> BackupReport:
        job = self._job
        version.require_supported(self._configuration)
        mode = MODES[mode_name(job.order, self._configuration, job.machine_dir)](self._place)
        if limits.lacks_space(self._configuration, job.machine_dir):
            # What a run left that was killed may be what the room is missing for.
            mode.discard_staging()
        try:
            bounds = limits.run_limits(self._configuration, job.machine_dir, clock=self._clock)
        except BackupFailed:
            # What left history may be what the room is missing for.
            self._sweep(mode)
            raise
        selected = selection(job.order, self._configuration)
        if dirty_flag.unclean_shutdown(self._place):
            _LOG.warning("%s: this storage went down during a run; contents are compared", self._source)
            selected = replace(selected, compare_contents=True)
        if mode.keeps_history:
            mode.tidy()
        zone = self._configuration.state.timezone
        warnings = self._clock_warnings(history.note_dates_ahead(self._place, zone, now=self._begin))
        newest = history.base(self._place, zone, now=self._begin)
        base = newest.name if newest else None
        _LOG.info("%s: backup begins (%s, on top of %s)", self._source, mode.name, base or "nothing")
        earlier = snapshot_notes.read(self._place, base) if base else NO_NOTES
        selected = replace(selected, compress=should_compress(self._compression, earlier))
        daemon = RsyncDaemon(job.rsync_port, self._source, job.username, job.password)
        spool = self._place.machine_dir
        with ChangeLog(spool) as planned, ChangeLog(spool) as changes:
            sync = Sync(
                self._place,
                self._configuration,
                daemon,
                mode,
                selected,
                bounds,
                probe_file_system(self._configuration, self._place.machine_dir),
                base,
                base_files=earlier.stats.files if earlier.stats else None,
                # What changed between the last two backups will have changed again.
                expects_changes=earlier.strategy == BackupStrategy.INCREMENTAL,
                damaged=damage.to_fetch(self._place),
                attribute_comparison=self._attribute_look(selected, earlier),
                files_with_holes=job.files_with_holes,
                keeps_incomplete=job.order.incomplete != run_options.FAIL,
                compares_base=job.order.compare_contents,
                spools=(planned, changes),
                clock=self._clock,
                cancellation=self._cancellation,
            )
            with sync.hardlink_copy() as copy:
                self._cancellation.check()
                plan = sync.plan(planned, copy)
                self._cancellation.check()
                if plan.compared is not None and not planned:
                    if copy is not None:
                        copy.end()
                    made = self._unchanged(sync, plan, plan.compared, changes)
                else:
                    made = self._built(sync, plan, planned, changes, copy)
        snapshot, transferred, noted = made.snapshot, made.transferred, made.noted
        end = self._clock.now()
        _LOG.info(
            "%s: %s in %.1f s; %s",
            self._source,
            f"snapshot {snapshot} ({made.strategy})" if snapshot else "synced in place",
            (end - self._begin).total_seconds(),
            "; ".join(line for line in transferred.statistics if line.startswith(_LOGGED_STATISTICS)),
        )
        if transferred.exit_status.meaning != "complete":
            _LOG.warning("%s: %s", self._source, transferred.exit_status.meaning)
        lost = noted.incomplete
        warnings = (*warnings, *made.warnings, *incomplete.warnings(lost))
        for warning in warnings[:_LOGGED_WARNINGS]:
            _LOG.warning("%s: %s", self._source, warning)
        summary = "\n".join((*warnings, transferred.summary))[:SUMMARY_LIMIT]
        if noted.findings:
            summary = f"{self._warning(mode, noted)}\n{summary}"[:SUMMARY_LIMIT]
        self._forget_altered()
        self._retire(mode, snapshot, end)
        return BackupReport(
            success=True,
            snapshot=snapshot,
            summary=summary,
            time_begin=self._begin.timestamp(),
            time_end=end.timestamp(),
            findings=noted.findings,
            strategy=made.strategy,
            strategy_reason=made.reason,
            missing_files=lost.missing_files,
            stale_files=lost.stale_files,
            warning_count=len(warnings) - len(lost.warnings) + lost.warning_count,
            warnings=warnings,
        )

    def _clock_warnings(self, ahead: tuple[str, ...]) -> tuple[str, ...]:
        if not ahead:
            return ()
        count = "1 snapshot is" if len(ahead) == 1 else f"{len(ahead)} snapshots are"
        warning = (
            f"{count} dated in the future, the last of them {ahead[-1]}: the clock of this storage is wrong, or was "
            "when they were made; they do not count as the latest"
        )
        return (warning,)

    @property
    def _compression(self) -> compression.Compression:
        with _naming("compress"):
            return compression.parse(self._job.order.compress or compression.Compression.AUTO)

    def _unchanged(self, sync: Sync, plan: DryRunResult, compared: TransferResult, changes: ChangeLog) -> _Committed:
        base = sync.existing_base
        tree = self._place.tree(base)
        changes.lists_every_change = True
        synced = SyncResult(
            compared,
            tree,
            BackupStrategy.UNCHANGED,
            file_errors=plan.mishaps,
            compared_all_attributes=plan.has_compared_attributes,
        )
        return self._linked(sync, synced, base, changes)

    def _linked(self, sync: Sync, synced: SyncResult, base: str, changes: ChangeLog) -> _Committed:
        compared, tree = synced.transferred, synced.tree
        noted = self._notes(sync, synced, changes=changes)
        record = self._record(base, self._clock.now(), noted)
        self._catalog(sync.mode, record, tree, changes)
        self._cancellation.check()
        snapshot = sync.mode.commit_unchanged(record, base)
        with suppress(OSError):
            dirty_flag.forget_if_nothing_is_left(self._place)
        return _Committed(snapshot, compared, noted, BackupStrategy.UNCHANGED)

    def _built(
        self, sync: Sync, plan: DryRunResult, planned: ChangeLog, changes: ChangeLog, copy: HardlinkCopy | None
    ) -> _Committed:
        mode, base = sync.mode, sync.base
        with dirty_flag.writing(self._place), sync.indexer() as ahead:
            synced = sync.bring(plan, planned, changes, copy, ahead)
            self._cancellation.check()
            if synced.strategy is BackupStrategy.UNCHANGED and base is not None:
                return self._linked(sync, synced, base, changes)
            noted = self._notes(sync, synced, changes=changes)
            record = self._record(base, self._clock.now(), noted)
            at_limit = timestamp_range.DatesAtLimit(timestamp_range.date_range(self._place.machine_dir))
            self._catalog(mode, record, synced.tree, changes, ahead=ahead, at_limit=at_limit)
            self._cancellation.check()
            snapshot = mode.commit(record, synced.tree)
            return _Committed(snapshot, synced.transferred, noted, synced.strategy, synced.reason, at_limit.sentences)

    def _catalog(
        self,
        mode: SnapshotMode,
        record: SnapshotRecord,
        tree: Path,
        changes: ChangeLog,
        *,
        ahead: catalog.StreamingIndexer | None = None,
        at_limit: timestamp_range.DatesAtLimit | None = None,
    ) -> None:
        """Write down what the snapshot has in it, just before it gets its name."""
        if mode.keeps_history:
            catalog.record(
                self._place,
                name=record.name,
                base=record.base,
                tree=tree,
                changes=changes,
                moment=record.sync_begin,
                zone=self._configuration.state.timezone,
                indexer=ahead,
                dates=at_limit,
            )

    def _notes(self, sync: Sync, synced: SyncResult, *, changes: ChangeLog) -> Notes:
        """Return what is noted of the backup; that it is suspicious among it."""
        mode, base = sync.mode, sync.base
        tree, transferred = synced.tree, synced.transferred
        earlier = snapshot_notes.read(self._place, base) if base else NO_NOTES
        found: RunStats | None
        # Where all was fetched into an empty directory, rsync takes every file for a new one.
        tells_what_is_new = synced.strategy is not BackupStrategy.FULL and earlier.stats is not None
        if not mode.keeps_history:
            found = stats.from_run(transferred.statistics, transferred.suffixes, None)
        elif base is None or (tells_what_is_new and not synced.includes_earlier_run and not synced.file_errors.entries):
            found = stats.from_run(transferred.statistics, transferred.suffixes, earlier.stats or _NOTHING)
        else:
            found = stats.from_trees(self._place.tree(base), tree)
        signs: tuple[str, ...] = ()
        lost = self._incompleteness(mode, synced, base, earlier)
        if found is not None:
            if base is not None and mode.keeps_history:
                changed = (each.path for each in changes if each.kind is ChangeKind.CHANGED)
                found = stats.with_content_sample(found, changed, self._place.tree(base), tree)
            usual = history.baseline(self._place, self._configuration.state.timezone)
            thresholds = self._configuration.anomaly.thresholds_of(self._place.machine_dir.name, self._source)
            signs = anomaly.findings(found, usual, thresholds=thresholds)
            before = earlier.stats.files if earlier.stats else found.files_before
            signs += incomplete.findings(lost, earlier.incomplete, before, thresholds)
        if mode.keeps_history and earlier.needs_review:
            signs = (*signs, f"it is built upon {base}, which is suspicious and was not judged yet")
        return Notes(
            period=retention_run.period(self._job.order, self._configuration),
            stats=found,
            findings=signs,
            bytes_per_second=transferred.bytes_per_second or earlier.bytes_per_second,
            compress=self._compression,
            incomplete=lost,
            machine_moment_ns=self._job.machine_time_ns,
            attributes_compared=self._attributes_compared(sync, synced, earlier),
            preserved=self._preserved(sync, synced, earlier),
            strategy=synced.strategy,
            strategy_reason=synced.reason,
        )

    def _attribute_look(self, selected: TransferOptions, earlier: Notes) -> AttributeComparison:
        """Return how changed attributes are found: at intervals, and where nothing is known, by comparing all."""
        keeps = selected.acls or selected.attributes
        compared, period = earlier.attributes_compared, self._configuration.receiving.compare_attributes_days
        is_recent = compared is not None and timedelta(0) <= self._begin - compared < timedelta(days=period)
        if not (keeps and is_recent):
            return AttributeComparison()
        return AttributeComparison(earlier.machine_moment_ns, self._job.changed_entries)

    def _attributes_compared(self, sync: Sync, synced: SyncResult, earlier: Notes) -> datetime | None:
        if not (sync.options.acls and sync.options.attributes):
            # Those that are left out now are looked at once they are not.
            return None
        return self._begin if synced.compared_all_attributes else earlier.attributes_compared

    def _preserved(self, sync: Sync, synced: SyncResult, earlier: Notes) -> tuple[str, ...]:
        now = preserved_properties(sync.options, sync.file_system)
        # Files that did not change have what they had.
        return now if synced.compared_all_attributes else tuple(each for each in now if each in earlier.preserved)

    def _incompleteness(
        self, mode: SnapshotMode, synced: SyncResult, base: str | None, earlier: Notes
    ) -> Incompleteness:
        made = snapshot_record.read(self._place, base) if base else None
        before = self._place.tree(base) if base else None
        return incomplete.assess(
            synced.file_errors,
            # Without history the only tree still has what did not come.
            before if mode.keeps_history else synced.tree,
            earlier.incomplete,
            made.sync_begin.isoformat(timespec="seconds") if made else "an earlier backup",
            (synced.transferred.skipped_devices_warning,) if synced.transferred.skipped_devices_warning else (),
        )

    def _warning(self, mode: SnapshotMode, noted: Notes) -> str:
        consequence = (
            "it is kept apart, and nothing of this source is pruned until it is judged (turku-storage quarantine)"
            if mode.keeps_history
            else "this source has no history"
        )
        warning = f"SUSPICIOUS: {'; '.join(noted.findings)}; {consequence}"
        _LOG.warning("%s: %s", self._source, warning)
        return warning

    def _clean_up_after_failure(self) -> None:
        """Remove what this run and failed or killed ones before it discarded, for a while: a success may be far off."""
        end = self._clock.monotonic_seconds() + SWEEP_AFTER_FAILURE_SECONDS
        with suppress(TurkuError, OSError):
            deletion.collect(self._place, lambda: self._clock.monotonic_seconds() < end)

    def _sweep(self, mode: SnapshotMode) -> None:
        # The machine is waiting, and others after it: what is left is removed in the background.
        end = self._clock.monotonic_seconds() + SWEEP_SECONDS
        mode.collect(lambda: self._clock.monotonic_seconds() < end)

    def _record(self, base: str | None, finish: datetime, noted: Notes) -> SnapshotRecord:
        zone = self._configuration.state.timezone
        begin = self._begin.astimezone(zone)
        taken = [each.name for each in history.stored_snapshots(self._place, zone)]
        named = begin
        while True:
            for _ in range(_NAMES_DRAWN):
                name = names.new_snapshot_name(self._source, named, secrets.token_hex(2))
                # Of two whose names have one time, the later one's name comes later too: others list them by that.
                second = name.rpartition("_")[0]
                is_in_order = all(each < name for each in taken if each.rpartition("_")[0] == second)
                if is_in_order and not fs.exists(self._place.snapshot(name)):
                    return SnapshotRecord(name, base, begin, finish.astimezone(zone), noted)
            named += timedelta(seconds=1)

    def _forget_altered(self) -> None:
        try:
            damage.forget_altered(self._place)
        except OSError as error:
            # They are fetched once more.
            _LOG.warning("%s: %s", self._source, error)

    def _retire(self, mode: SnapshotMode, snapshot: str | None, now: datetime) -> None:
        # The backup is made: what goes wrong from here on is a warning.
        configuration = self._configuration
        try:
            unjudged = history.awaiting_review(self._place, configuration.state.timezone)
            if unjudged:
                _LOG.warning(
                    "%s: nothing is pruned: %d suspicious snapshots, the first of them %s, wait to be judged "
                    "(turku-storage quarantine)",
                    self._source,
                    len(unjudged),
                    unjudged[0].name,
                )
            else:
                if snapshot is not None:
                    retention_run.apply(self._place, self._job.order, configuration, now=now, newest_name=snapshot)
                trash.empty(self._place, removed_until=now - timedelta(days=configuration.retention.trash_days))
                catalog.forget(self._place, zone=configuration.state.timezone)
            self._sweep(mode)
            trash.remove_stray_records(self._place)
            retention_rules.record(self._place, self._job.order)
        except (TurkuError, OSError) as error:
            _LOG.warning("%s: retention: %s", self._source, error)


def _with_quota(configuration: StorageConfig, quota_bytes: int | None) -> StorageConfig:
    """The configuration with the operator's quota at the coordinator, where that is the smaller one."""
    quotas = [quota for quota in (configuration.disk.machine_quota_bytes, quota_bytes) if quota is not None]
    return with_values(configuration, machine_quota_bytes=min(quotas, default=None))


_LOGGED_WARNINGS = 25
_NAMES_DRAWN = 100
"""Within a second; then the next one is taken."""
_NOTHING = RunStats(files_before=0, files=0)
"""What there was before the first backup."""
_LOGGED_STATISTICS = ("Number of files:", "Number of regular files transferred:", "Total transferred file size:")
