"""One backup of one source: rsync, commit, retention; what the session calls and reports."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from turku.core.cancellation import NEVER, Cancellation
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.log import one_line
from turku.core.secret import Secret
from turku.errors import BackupFailed, LockHeld, PolicyError, TurkuError
from turku.policy import bandwidth, compression, filters, names, suspicion
from turku.policy.suspicion import Figures
from turku.protocol.messages import SourceOrder
from turku.storage import catalog, damage, figures, history, limits, power_loss, pruning, rsync_version, transfer, trash
from turku.storage.changes import Changes, Kind
from turku.storage.configuration import Storage
from turku.storage.fs import tree as fs
from turku.storage.snapshots import AUTO, MODE_NAMES, MODES, SnapshotMode, choose, garbage, notes
from turku.storage.snapshots.assembly import HardlinkCopy
from turku.storage.snapshots.in_place import InPlace
from turku.storage.snapshots.notes import NO_NOTES, Notes
from turku.storage.snapshots.place import SourcePlace
from turku.storage.snapshots.record import SnapshotRecord
from turku.storage.strategy import Plan, Strategy, Sync, SyncResult

SWEEP_SECONDS = 0.5
SWEEP_AFTER_FAILURE_SECONDS = 5.0
"""For how long a session removes what left history: the machine waits for it, ``turku-storage prune`` has the time."""
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


@dataclass(frozen=True)
class BackupOutcome:
    """What is reported to the coordinator; times are Unix seconds."""

    success: bool
    snapshot: str | None
    summary: str
    time_begin: float
    time_end: float
    suspicious: tuple[str, ...] = ()
    """What makes it look as if the machine had been taken over, a sentence each (threats M10)."""
    strategy: str = ""
    """How it was made (``strategy.Strategy``); empty where it failed."""
    strategy_reason: str = ""
    """Why everything was looked at although there was a snapshot to build upon."""


def back_up(
    job: BackupJob, configuration: Storage, *, clock: Clock = SYSTEM_CLOCK, cancellation: Cancellation = NEVER
) -> BackupOutcome:
    """How the backup went, retention included. A backup that fails is an outcome; nothing of the domain is raised.

    What ``cancellation`` raises is, as long as there is no snapshot.
    """
    begin = clock.now()
    try:
        return _Run(job, configuration, clock, begin, cancellation).outcome()
    except TurkuError as error:
        summary = "\n".join(part for part in (error.message, error.details, error.hint) if part)
    except OSError as error:
        summary = f"{error.strerror or error}" + (f": {error.filename!r}" if error.filename else "")
    summary = "\n".join(one_line(line) for line in summary.splitlines())[: transfer.SUMMARY_LIMIT]
    _LOG.error("%s: backup failed: %s", job.source_name, "; ".join(summary.splitlines()))
    return BackupOutcome(
        success=False,
        snapshot=None,
        summary=summary,
        time_begin=begin.timestamp(),
        time_end=clock.now().timestamp(),
    )


def mode_name(order: SourceOrder, configuration: Storage, machine_dir: Path) -> str:
    """The mode of the source's backup: the source's own, else ``none`` for large files, else the configuration's.

    (contract, sections 2 and 5). Large files keep history where the configuration's mode shares their blocks; ``auto``
    is settled for the volume that holds the machine's directory. Raises BackupFailed for a mode that this storage does
    not have.
    """
    has_large_files = order.large_rotating_files or order.large_modifying_files
    name = order.snapshot_mode or configuration.snapshot_mode
    if name not in MODE_NAMES:
        raise BackupFailed(
            f"snapshot_mode: {name!r} is none of {', '.join(MODE_NAMES)}",
            hint="mend the source's snapshot_mode on the machine, or leave it out",
        )
    if name == AUTO:
        return choose(machine_dir, has_large_files=has_large_files, allowed=order.allowed_snapshot_modes)
    if has_large_files and not order.snapshot_mode and not MODES[name].shares_blocks:
        return InPlace.name
    return name


def selection(order: SourceOrder, configuration: Storage) -> transfer.Selection:
    """What the order selects. Every rule is checked again here: a coordinator may be an older one, or hostile.

    Raises PolicyError naming the option.
    """
    with _naming("filter"):
        rules = [filters.parse_rule(text).text for text in order.filter]
    with _naming("exclude"):
        # After the filter, as existing storages have it: the first rule that matches decides.
        rules += [filters.parse_exclude(text).filter_text for text in order.exclude]
    with _naming("bwlimit"):
        found = bandwidth.parse(order.bandwidth_windows or order.bwlimit)
    return transfer.Selection(
        rules=tuple(rules),
        hard_links=order.preserve_hard_links or configuration.preserve_hard_links,
        bandwidth_kib_per_second=found.constant,
        bandwidth_limits=found,
    )


@contextmanager
def _naming(option: str) -> Iterator[None]:
    try:
        yield
    except PolicyError as error:
        raise PolicyError(f"{option}: {error.message}", hint=error.hint) from error


@dataclass(frozen=True)
class _Made:
    """A backup that is committed."""

    snapshot: str | None
    transferred: transfer.Transferred
    noted: Notes
    strategy: Strategy
    reason: str = ""


class _Run:
    def __init__(
        self, job: BackupJob, configuration: Storage, clock: Clock, begin: datetime, cancellation: Cancellation
    ) -> None:
        self._cancellation = cancellation
        self._job = job
        self._configuration = configuration = _with_quota(configuration, job.order.quota_bytes)
        self._clock = clock
        self._begin = begin
        self._source = names.source_name(job.source_name)
        self._place = SourcePlace(job.machine_dir, self._source)

    def outcome(self) -> BackupOutcome:
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

    def _outcome(self) -> BackupOutcome:
        job = self._job
        rsync_version.refuse_old(self._configuration)
        mode = MODES[mode_name(job.order, self._configuration, job.machine_dir)](self._place)
        try:
            bounds = limits.bounds(self._configuration, job.machine_dir, clock=self._clock)
        except BackupFailed:
            # What left history may be what the room is missing for.
            self._sweep(mode)
            raise
        selected = selection(job.order, self._configuration)
        if power_loss.went_down_while_writing(self._place):
            _LOG.warning("%s: this storage went down during a run; contents are compared", self._source)
            selected = replace(selected, compare_contents=True)
        if mode.keeps_history:
            mode.tidy()
        newest = history.base(self._place, self._configuration.zone)
        base = newest.name if newest else None
        _LOG.info("%s: backup begins (%s, on top of %s)", self._source, mode.name, base or "nothing")
        earlier = notes.read(self._place, base) if base else NO_NOTES
        selected = replace(selected, compress=transfer.is_compressed(self._compression, earlier))
        daemon = transfer.Daemon(job.rsync_port, self._source, job.username, job.password)
        spool = self._place.machine_dir
        with Changes(spool) as planned, Changes(spool) as changes:
            sync = Sync(
                self._place,
                self._configuration,
                daemon,
                mode,
                selected,
                bounds,
                base,
                base_files=earlier.figures.files if earlier.figures else None,
                damaged=damage.to_fetch(self._place),
                spools=(planned, changes),
                clock=self._clock,
                cancellation=self._cancellation,
            )
            with sync.hardlink_copy() as copy:
                self._cancellation.check()
                plan = sync.plan(planned, copy)
                self._cancellation.check()
                if plan.compared is not None and not planned:
                    made = self._unchanged(sync, plan.compared, changes)
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
        if transferred.outcome.meaning != "complete":
            _LOG.warning("%s: %s", self._source, transferred.outcome.meaning)
        summary = transferred.summary
        if noted.suspicious:
            summary = f"{self._warning(mode, noted)}\n{summary}"[: transfer.SUMMARY_LIMIT]
        self._retire(mode, snapshot, end)
        return BackupOutcome(
            success=True,
            snapshot=snapshot,
            summary=summary,
            time_begin=self._begin.timestamp(),
            time_end=end.timestamp(),
            suspicious=noted.suspicious,
            strategy=made.strategy,
            strategy_reason=made.reason,
        )

    @property
    def _compression(self) -> compression.Compression:
        with _naming("compress"):
            return compression.parse(self._job.order.compress or compression.Compression.AUTO)

    def _unchanged(self, sync: Sync, compared: transfer.Transferred, changes: Changes) -> _Made:
        base = sync.existing_base
        tree = self._place.tree(base)
        changes.is_complete = True
        synced = SyncResult(compared, tree, Strategy.UNCHANGED)
        noted = self._notes(sync.mode, synced, base, changes=changes)
        record = self._record(base, self._clock.now(), noted)
        self._catalog(sync.mode, record, tree, changes)
        self._cancellation.check()
        snapshot = sync.mode.commit_unchanged(record, base)
        with suppress(OSError):
            power_loss.forget_if_nothing_is_left(self._place)
        return _Made(snapshot, compared, noted, Strategy.UNCHANGED)

    def _built(self, sync: Sync, plan: Plan, planned: Changes, changes: Changes, copy: HardlinkCopy | None) -> _Made:
        mode, base = sync.mode, sync.base
        with power_loss.writing(self._place), sync.indexer() as ahead:
            synced = sync.bring(plan, planned, changes, copy, ahead)
            self._cancellation.check()
            noted = self._notes(mode, synced, base, changes=changes)
            record = self._record(base, self._clock.now(), noted)
            self._catalog(mode, record, synced.tree, changes, ahead)
            self._cancellation.check()
            snapshot = mode.commit(record, synced.tree)
            return _Made(snapshot, synced.transferred, noted, synced.strategy, synced.reason)

    def _catalog(
        self,
        mode: SnapshotMode,
        record: SnapshotRecord,
        tree: Path,
        changes: Changes,
        ahead: catalog.Ahead | None = None,
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
                zone=self._configuration.zone,
                ahead=ahead,
            )

    def _notes(self, mode: SnapshotMode, synced: SyncResult, base: str | None, *, changes: Changes) -> Notes:
        """Return what is noted of the backup; that it is suspicious among it."""
        tree, transferred = synced.tree, synced.transferred
        earlier = notes.read(self._place, base) if base else NO_NOTES
        found: Figures | None
        # Where all was fetched into an empty directory, rsync takes every file for a new one.
        tells_what_is_new = synced.strategy is not Strategy.FULL and earlier.figures is not None
        if not mode.keeps_history:
            found = figures.of_run(transferred.statistics, transferred.suffixes, None)
        elif base is None or (tells_what_is_new and not synced.has_former):
            found = figures.of_run(transferred.statistics, transferred.suffixes, earlier.figures or _NOTHING)
        else:
            found = figures.of_trees(self._place.tree(base), tree)
        signs: tuple[str, ...] = ()
        if found is not None:
            if base is not None and mode.keeps_history:
                changed = (each.path for each in changes if each.kind is Kind.CHANGED)
                found = figures.looked_into(found, changed, self._place.tree(base), tree)
            usual = history.usual(self._place, self._configuration.zone)
            thresholds = self._configuration.suspicion_of(self._place.machine_dir.name, self._source)
            signs = suspicion.signs(found, usual, thresholds=thresholds)
        if mode.keeps_history and earlier.is_unjudged:
            signs = (*signs, f"it is built upon {base}, which is suspicious and was not judged yet")
        return Notes(
            slot=pruning.slot(self._job.order, self._configuration),
            figures=found,
            suspicious=signs,
            bytes_per_second=transferred.bytes_per_second or earlier.bytes_per_second,
            compress=self._compression,
            strategy=synced.strategy,
            strategy_reason=synced.reason,
        )

    def _warning(self, mode: SnapshotMode, noted: Notes) -> str:
        consequence = (
            "it is kept apart, and nothing of this source is pruned until it is judged (turku-storage suspicious)"
            if mode.keeps_history
            else "this source has no history"
        )
        warning = f"SUSPICIOUS: {'; '.join(noted.suspicious)}; {consequence}"
        _LOG.warning("%s: %s", self._source, warning)
        return warning

    def _clean_up_after_failure(self) -> None:
        """Remove what this run and failed or killed ones before it discarded, for a while: a success may be far off."""
        end = self._clock.monotonic_seconds() + SWEEP_AFTER_FAILURE_SECONDS
        with suppress(TurkuError, OSError):
            garbage.remove(self._place, lambda: self._clock.monotonic_seconds() < end)

    def _sweep(self, mode: SnapshotMode) -> None:
        # The machine is waiting, and others after it: what is left is removed in the background.
        end = self._clock.monotonic_seconds() + SWEEP_SECONDS
        mode.sweep(lambda: self._clock.monotonic_seconds() < end)

    def _record(self, base: str | None, finish: datetime, noted: Notes) -> SnapshotRecord:
        zone = self._configuration.zone
        begin = self._begin.astimezone(zone)
        newest = history.newest(self._place, zone)
        named = begin
        while True:
            follows_at_once = newest is not None and newest.moment == named.replace(microsecond=0)
            for _ in range(_NAMES_DRAWN):
                name = names.new_snapshot_name(self._source, named, secrets.token_hex(2))
                # Of two within a second, the later one's name comes later too: that is how they are listed.
                is_in_order = not follows_at_once or newest is None or name > newest.name
                if is_in_order and not fs.exists(self._place.snapshot(name)):
                    return SnapshotRecord(name, base, begin, finish.astimezone(zone), noted)
            named += timedelta(seconds=1)

    def _retire(self, mode: SnapshotMode, snapshot: str | None, now: datetime) -> None:
        # The backup is made: what goes wrong from here on is a warning.
        configuration = self._configuration
        try:
            unjudged = history.unjudged(self._place, configuration.zone)
            if unjudged:
                _LOG.warning(
                    "%s: nothing is pruned: %d suspicious snapshots, the first of them %s, wait to be judged "
                    "(turku-storage suspicious)",
                    self._source,
                    len(unjudged),
                    unjudged[0].name,
                )
            else:
                if snapshot is not None:
                    pruning.prune(mode, self._job.order, configuration, now=now, newest_name=snapshot)
                trash.empty(mode, removed_until=now - timedelta(days=configuration.trash_days))
                catalog.forget(self._place, zone=configuration.zone)
            self._sweep(mode)
            trash.sweep_records(self._place)
        except (TurkuError, OSError) as error:
            _LOG.warning("%s: retention: %s", self._source, error)


def _with_quota(configuration: Storage, quota_bytes: int | None) -> Storage:
    """The configuration with the operator's quota at the coordinator, where that is the smaller one."""
    quotas = [quota for quota in (configuration.machine_quota_bytes, quota_bytes) if quota is not None]
    return replace(configuration, machine_quota_bytes=min(quotas, default=None))


_NAMES_DRAWN = 100
"""Within a second; then the next one is taken."""
_NOTHING = Figures(files_before=0, files=0)
"""What there was before the first backup."""
_LOGGED_STATISTICS = ("Number of files:", "Number of regular files transferred:", "Total transferred file size:")
