"""A machine's checkin: it asks what is due, backs it up, and reports it, source by source."""

import functools
import logging
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from msgspec import UNSET, structs

from turku.core import retry
from turku.core.clock import Clock
from turku.core.log import one_line
from turku.core.secret import Secret
from turku.errors import ApiError, ApiNotFound, ApiUnreachable, BackupFailed, InvalidValue, LockHeld, TurkuError
from turku.policy import names
from turku.protocol.messages import (
    HEARTBEAT_CALL,
    HEARTBEAT_SECONDS,
    STRATEGY_REASON_LIMIT,
    WARNINGS_LIMIT,
    Empty,
    MachineReference,
    ReportedMachine,
    ScheduledMachine,
    SessionRequest,
    SourceOrder,
    SourceReport,
    StorageCredentials,
    StorageHeartbeatAnswer,
    StorageHeartbeatRequest,
    StoragePingCheckinAnswer,
    StoragePingCheckinRequest,
    StoragePingSourceUpdateRequest,
)
from turku.storage.backup.job import BackupJob, BackupReport
from turku.storage.backup.run import back_up
from turku.storage.config.model import StorageConfig
from turku.storage.containment import bubblewrap
from turku.storage.containment.bubblewrap import SandboxProbeFailed
from turku.storage.disk import machine_links, volumes
from turku.storage.registration import faults
from turku.storage.registration.coordinator import Coordinator
from turku.storage.session import session_slots
from turku.storage.session.cancellation import AgentDisconnected, SessionCancellation

_LAST_HEARTBEAT_SECONDS: Final = 10.0
"""The time that a session waits for its last heartbeat. The lease ends by itself."""


class Heartbeat:
    """Sends heartbeats in a thread from ``begin`` to the end of the block. A context manager.

    They extend the machine's lease of a slot. A killed session sends no more, and its slot is free within minutes. A
    coordinator of the existing system does not know the call, and is asked once.
    """

    def __init__(self, configuration: StorageConfig, uuid: str, *, pause_seconds: float = HEARTBEAT_SECONDS) -> None:
        self._configuration = configuration
        self._uuid = uuid
        self._pause_seconds = pause_seconds
        self._left: set[str] = set()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._call_is_known = True
        self._is_leased = True

    def __enter__(self) -> "Heartbeat":
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(_LAST_HEARTBEAT_SECONDS)

    def begin(self, sources: Iterable[str]) -> None:
        """Begin the heartbeats of a lease for these sources. Without sources there is no lease."""
        self._left = set(sources)
        if self._left:
            self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
            self._thread.start()

    def reported(self, source: str) -> None:
        """Note that the coordinator has the source's report. With the last one it ends the lease by itself."""
        self._left.discard(source)

    def _beat(self) -> None:
        coordinator = Coordinator(self._configuration).beyond_contract()
        while self._call_is_known and not self._over.wait(self._pause_seconds):
            self._send_heartbeat(coordinator, ended=False)
        if self._call_is_known and self._left:
            self._send_heartbeat(coordinator, ended=True)

    def _send_heartbeat(self, coordinator: Coordinator, *, ended: bool) -> None:
        try:
            answer = coordinator.call(
                HEARTBEAT_CALL,
                lambda mine: StorageHeartbeatRequest(mine, MachineReference(self._uuid), ended),
                StorageHeartbeatAnswer,
            )
        except ApiNotFound as error:
            # Existing coordinators do not have the call.
            self._call_is_known = False
            _LOG.debug("heartbeat: %s", error.message)
        except TurkuError as error:
            _LOG.debug("heartbeat: %s", error.message)
        except Exception:
            # The next one may succeed. Without any, the session loses its slot within minutes.
            _LOG.exception("heartbeat: internal error, the heartbeat was not sent")
        else:
            if not ended and not answer.leased and self._is_leased:
                _LOG.warning(
                    "the coordinator got no heartbeat of this session in time, and may give its slot to another machine"
                )
            self._is_leased = answer.leased


_SUMMARY_LIMIT: Final = 60_000
_FINDINGS_LIMIT: Final = 20
_WARNING_LIMIT: Final = 4096
_LOG = logging.getLogger(__name__)


@dataclass
class Checkin:
    """The backups of one session. Each source that is due and that the agent offers is backed up and reported."""

    configuration: StorageConfig
    uuid: str
    request: SessionRequest
    agent: SessionCancellation
    clock: Clock
    failed: list[str] = field(default_factory=list)
    unreported: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    """Sources that got no slot of their volume."""
    warnings: tuple[str, ...] = ()
    """Warnings that are reported with every backup of the session."""
    heartbeat: Heartbeat = field(init=False)

    def __post_init__(self) -> None:
        self.heartbeat = Heartbeat(self.configuration, self.uuid)

    def run(self) -> None:
        """Run all backups. Raises BackupFailed or ApiUnreachable if a backup or a report failed."""
        with self.heartbeat:
            self._run()

    def _run(self) -> None:
        api = Coordinator(self.configuration)
        machine = self._ask(api)
        if warning := api.clock_warning(self.clock):
            self.warnings = (warning,)
            _LOG.warning("%s", warning)
        orders = self._orders(machine)
        self._report_withheld(api, machine)
        count = len(orders) + len(self.failed)
        if not orders:
            _LOG.info("nothing to back up")
            self._raise_failures(count)
            return
        self._note_containment()
        begin = self.clock.now().timestamp()
        try:
            directory = volumes.machine_directory(self.configuration, self.uuid)
        except TurkuError as error:
            for name in orders:
                self._report(api, name, self._failure(begin, "\n".join(filter(None, (error.message, error.details)))))
            raise
        machine_links.update_name_link(self.configuration.state, self.uuid, machine)
        at_once = min(len(orders), self.configuration.sessions.parallel_sources)
        if self.request.parallel_sources is not UNSET:
            at_once = min(at_once, self.request.parallel_sources)
        with ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="source") as pool:
            try:
                # The list raises here whatever a thread raises.
                list(pool.map(lambda name: self._back_up_and_report(api, directory, name, orders[name]), orders))
            except BaseException:
                # This includes a signal to this program. The pool waits for its threads, so they must end.
                self.agent.cancel()
                raise
        if len(self.busy) < len(orders):
            # This session's other sources may have kept the volume busy.
            for name in self.busy:
                self._back_up_and_report(api, directory, name, orders[name])
        self._raise_failures(count)

    def _note_containment(self) -> None:
        """Tell about a sandbox that is missing: in each run's summary, and to the coordinator by the next timer."""
        try:
            fault = bubblewrap.fault(self.configuration.limits)
        except SandboxProbeFailed:
            # Each run that it concerns fails by itself.
            return
        faults.note_containment(self.configuration.state, fault)
        if fault is not None and not bubblewrap.is_required(self.configuration.limits):
            self.warnings = (*self.warnings, fault)

    def _back_up_and_report(self, api: Coordinator, directory: Path, name: str, order: SourceOrder) -> None:
        if self.agent.is_cancelled:
            _LOG.warning("the agent ended the session; source %s stays due", name)
            return
        credentials = self.request.sources[name]
        if credentials.one_file_system is not UNSET:
            # The machine serves one file system only. rsync's own option would keep the base's files at mount points.
            order = structs.replace(order, one_file_system=False)
        job = BackupJob(
            machine_dir=directory,
            source_name=name,
            order=order,
            rsync_port=self.request.port,
            username=credentials.username,
            password=Secret(credentials.password),
            machine_time_ns=None if self.request.moment_ns is UNSET else self.request.moment_ns,
            changed_entries=functools.partial(self.agent.reported.of_source, name),
            files_with_holes=functools.partial(self.agent.reported.with_holes, name),
        )
        outcome = self._back_up(job)
        if outcome is None:
            self.busy = [*self.busy, name]
            return
        if not outcome.success:
            self.failed.append(name)
        self._report(api, name, self._compare_with_source(job, outcome))

    def _report_withheld(self, api: Coordinator, machine: ScheduledMachine) -> None:
        """Report sources that the machine itself cannot offer now, for instance because a disk is not mounted."""
        if self.request.withheld is UNSET:
            return
        for name, reason in self.request.withheld.items():
            if name in machine.scheduled_sources and name not in self.request.sources:
                _LOG.error("source %.200s is not offered: %s", name, one_line(reason))
                self.failed.append(name)
                self._report(api, name, self._failure(self.clock.now().timestamp(), one_line(reason)))

    def _ask(self, api: Coordinator) -> ScheduledMachine:
        machine = api.call(
            "storage_ping_checkin",
            lambda mine: StoragePingCheckinRequest(mine, MachineReference(self.uuid), sends_heartbeats=True),
            StoragePingCheckinAnswer,
        ).machine
        if machine.uuid.lower() != self.uuid:
            raise ApiUnreachable(f"storage_ping_checkin: the answer is about another machine: {machine.uuid:.100}")
        self.heartbeat.begin(machine.scheduled_sources)
        return machine

    def _orders(self, machine: ScheduledMachine) -> dict[str, SourceOrder]:
        """Return the sources that are due and that the agent offers. Log a line for each other one."""
        orders: dict[str, SourceOrder] = {}
        folded: set[str] = set()
        for name, order in machine.scheduled_sources.items():
            try:
                names.source_name(name)
            except InvalidValue as error:
                # The coordinator refuses such names, so this one is hostile, old or broken (threats M2).
                _LOG.error("source %.200s is not backed up: %s", name, error.message)
                continue
            if names.fold(name) in folded:
                _LOG.error("source %s is not backed up: another one differs only by case or spelling", name)
            elif name not in self.request.sources:
                _LOG.info("source %s is due, but the agent does not offer it", name)
            else:
                folded.add(names.fold(name))
                orders[name] = order
        for name in self.request.sources.keys() - machine.scheduled_sources.keys():
            _LOG.info("source %.200s is offered, but not due", name)
        return orders

    def _back_up(self, job: BackupJob) -> BackupReport | None:
        """Return the report of the backup. None if it was not begun and stays due."""
        begin = self.clock.now().timestamp()
        has_begun = False
        try:
            with session_slots.volume_slot(
                self.configuration, job.machine_dir, clock=self.clock, cancellation=self.agent
            ):
                has_begun = True
                return back_up(job, self.configuration, clock=self.clock, cancellation=self.agent)
        except AgentDisconnected:
            return self._failure(begin, "the agent ended the session during the backup") if has_begun else None
        except LockHeld as error:
            _LOG.warning("source %s is not backed up now: %s; %s", job.source_name, error.message, error.hint)
            return None
        except TurkuError as error:
            _LOG.error("source %s: backup failed: %s", job.source_name, error.message)
            return self._failure(begin, error.message)
        except Exception as error:
            _LOG.exception("source %s: internal error", job.source_name)
            return self._failure(begin, f"internal error: {type(error).__name__}: {error}")

    def _compare_with_source(self, job: BackupJob, outcome: BackupReport) -> BackupReport:
        """Return the report with findings about unchanged files that differ from the machine's."""
        if outcome.snapshot is None:
            return outcome
        from turku.storage.disk.source_directory import SourceDirectory
        from turku.storage.integrity import source_comparison

        place = SourceDirectory(job.machine_dir, job.source_name)
        try:
            findings = source_comparison.after_backup(
                self.configuration, place, job.daemon, outcome.snapshot, cancellation=self.agent
            )
        except AgentDisconnected:
            _LOG.info("source %s: the agent ended the session before it was compared", job.source_name)
            return outcome
        except Exception:
            # The backup is made and must be reported.
            _LOG.exception("source %s: internal error while it was compared with the machine", job.source_name)
            return outcome
        if not findings:
            return outcome
        summary = "\n".join((f"ANOMALY: {'; '.join(findings)}", outcome.summary))
        return replace(outcome, findings=(*outcome.findings, *findings)[:_FINDINGS_LIMIT], summary=summary)

    def _failure(self, begin: float, summary: str) -> BackupReport:
        end = self.clock.now().timestamp()
        return BackupReport(success=False, snapshot=None, summary=summary, time_begin=begin, time_end=end)

    def _report(self, api: Coordinator, name: str, outcome: BackupReport) -> None:
        warnings = (*self.warnings, *outcome.warnings)
        report = SourceReport(
            success=outcome.success,
            snapshot=outcome.snapshot,
            summary="\n".join((*self.warnings, outcome.summary))[:_SUMMARY_LIMIT],
            time_begin=outcome.time_begin,
            time_end=outcome.time_end,
            findings=list(outcome.findings),
            strategy=outcome.strategy,
            strategy_reason=one_line(outcome.strategy_reason)[:STRATEGY_REASON_LIMIT],
            missing_files=outcome.missing_files,
            stale_files=outcome.stale_files,
            warning_count=len(self.warnings) + max(outcome.warning_count, len(outcome.warnings)),
            warnings=[one_line(warning)[:_WARNING_LIMIT] for warning in warnings[:WARNINGS_LIMIT]],
        )

        def message(credentials: StorageCredentials) -> StoragePingSourceUpdateRequest:
            return StoragePingSourceUpdateRequest(credentials, ReportedMachine(self.uuid, {name: report}))

        try:
            retry.call(
                lambda: api.call("storage_ping_source_update", message, Empty),
                on=ApiUnreachable,
                sleep=self.clock.sleep,
                note=lambda error: _LOG.warning("source %s: not reported yet: %s", name, error),
            )
        except ApiError as error:
            reason = f"{error.message} {error.details}".strip()
            _LOG.error("source %s: the coordinator does not know of this backup: %s", name, reason)
            self.unreported.append(name)
        else:
            self.heartbeat.reported(name)

    def _raise_failures(self, count: int) -> None:
        if self.failed:
            raise BackupFailed(f"{len(self.failed)} of {count} backups failed: {', '.join(self.failed)}")
        if self.unreported:
            raise ApiUnreachable(f"backups that could not be reported: {', '.join(self.unreported)}")
