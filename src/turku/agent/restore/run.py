"""The run of a restore: a tunnel, a writable staging directory, and a storage that pushes files into it.

The storage announces its plan first. The module is offered only after the caller has approved the plan. Received files
are compared with the manifest while others arrive. When nobody writes any more, they are moved to their places
(``placement``). Until then the target is unchanged, so a restore may be killed at any moment, and the next one resumes.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from turku.agent.config.model import AgentConfig, AgentState
from turku.agent.restore import file_metadata, manifest
from turku.agent.restore import session as history_session
from turku.agent.restore.answers import AnswerReader, RestoreTransfer, SparseFiles, UnsupportedAttributes
from turku.agent.restore.job import RestoreJob
from turku.agent.restore.placement.placement import Placement
from turku.agent.restore.plan import PlannedRestore, planned_restore
from turku.agent.restore.progress import RestoreProgress
from turku.agent.restore.result import ProblemList, RestoreResult, count_of
from turku.agent.restore.session import HistorySession
from turku.agent.restore.staging import staging_directory, target
from turku.agent.restore.staging.target import PreparedTarget
from turku.agent.restore.verification import Verification
from turku.agent.rsyncd import daemon as rsync_daemon
from turku.agent.rsyncd import receiving_daemon
from turku.agent.rsyncd.config_text import Module
from turku.agent.rsyncd.receiving_daemon import ReceivingDaemon
from turku.agent.tunnel.ssh_tunnel import RemotePortTaken
from turku.agent.tunnel.trusted_storages import Address
from turku.core.log import one_line
from turku.core.units import size
from turku.errors import CommandFailed, MalformedMessage, RestoreFailed, TurkuError
from turku.protocol.restore_messages import (
    MODULE,
    Answer,
    HistoryRequest,
    RestoreEnd,
    RestorePlan,
    Settable,
    path_bytes,
)

_PORT_ATTEMPTS = 5
_POLL_SECONDS = 0.25
_END_TIMEOUT_SECONDS = 10.0
_LOG = logging.getLogger(__name__)


def restore(
    agent: AgentConfig,
    job: RestoreJob,
    *,
    on_progress: Callable[[RestoreProgress], None] = lambda _progress: None,
    approve: Callable[[PlannedRestore], bool] = lambda _plan: True,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> RestoreResult:
    """Run a restore job and return its result.

    ``approve`` may ask a person. ``on_progress`` and ``is_cancelled`` are called a few times a second, in this thread.
    Raises NotInHistory, RestoreFailed, StorageNotTrusted, InvalidValue, LockHeld, CommandFailed, ApiRefused and others
    where nothing was restored.
    """
    address = history_session.trusted_address(agent, job.storage)
    details = ""
    job, differing = manifest.find_differing(agent, job, address)
    callbacks = _Callbacks(on_progress, approve, is_cancelled)
    with history_session.scratch(agent, "file-restore") as directory:
        for number in range(1, _PORT_ATTEMPTS + 1):
            scratch = directory / f"attempt-{number}"
            scratch.mkdir(mode=0o700)
            try:
                return _Attempt(agent, job, address, callbacks, differing=differing).run(scratch)
            except RemotePortTaken as error:
                _LOG.info("%s; trying another", error.message)
                details = error.details
    raise CommandFailed(f"storage {address.name} could not listen on any of {_PORT_ATTEMPTS} ports", details=details)


def discard(configuration: AgentState, directory: Path) -> None:
    """Remove what an interrupted restore into the directory left, so that nothing resumes there."""
    with suppress(TurkuError), target.locked(directory) as descriptor:
        staging_directory.discard(configuration, descriptor, directory)


@dataclass(frozen=True)
class _Callbacks:
    """The caller's side of a restore."""

    on_progress: Callable[[RestoreProgress], None]
    approve: Callable[[PlannedRestore], bool]
    is_cancelled: Callable[[], bool]


@dataclass
class _Attempt:
    """One attempt of a restore, in one session."""

    agent: AgentConfig
    job: RestoreJob
    address: Address
    callbacks: _Callbacks
    differing: Collection[bytes] = ()
    verification: Verification | None = None
    reader: AnswerReader | None = None
    kinds: tuple[Settable, ...] = ()
    sparse_files: SparseFiles = field(default_factory=SparseFiles)

    def run(self, scratch: Path) -> RestoreResult:
        self.kinds = file_metadata.supported_kinds(self.job.target or self.job.below, self.agent.rsyncd.rsyncd_command)
        with ExitStack() as stack:
            unsupported = stack.enter_context(UnsupportedAttributes(scratch))
            module = Module(MODULE, "/", writable=True)
            # The tunnel is closed first. The daemon then ends after it has reported the last files.
            with (
                receiving_daemon.serve(self.agent, scratch, self._received) as daemon,
                self._session(daemon, module, scratch) as session,
            ):
                answers = session.answers()
                plan = self._plan(session, answers)
                planned = planned_restore(self.agent.state, self.job, plan, self.address.name)
                if not self.callbacks.approve(planned):
                    session.close()
                    return RestoreResult("cancelled", planned.snapshot, planned.target)
                planned.require_space()
                transfer = self._prepare(plan, planned, scratch, stack)
                self.reader = AnswerReader(answers, transfer.verification, self.sparse_files, unsupported)
                daemon.offer(
                    replace(module, path=transfer.target.staging.module_path),
                    may_delete=self.job.delete,
                    has_labels=plan.has_labels,
                    file_limit_bytes=planned.bytes_limit,
                )
                session.release_storage()
                self._watch(transfer, self.reader)
                if not transfer.is_cancelled:
                    session.close()
            self.reader.join(_END_TIMEOUT_SECONDS)
            problems = ProblemList()
            deleted = 0
            if not transfer.is_cancelled:
                transfer.verification.finish(repairs_links=not rsync_daemon.can_change_root())
                self._report_lost(problems)
                self.sparse_files.dig_holes(transfer.target.staging.offered, problems)
                unsupported.narrow_modes(transfer.target.staging.tree, problems)
                deleted = self._place(transfer, problems)
            result = self._result(transfer, problems, deleted, tuple(unsupported.warnings()))
            self.callbacks.on_progress(transfer.progress())
            return result

    def _session(
        self, daemon: ReceivingDaemon, module: Module, scratch: Path
    ) -> AbstractContextManager[HistorySession]:
        is_verbose = _LOG.isEnabledFor(logging.DEBUG)
        request = HistoryRequest(
            "restore_files",
            restore_files=self.job.message(self.agent, sets=list(self.kinds)),
            port=daemon.port,
            module=module.credentials,
            verbose=is_verbose,
        )
        return history_session.opened(self.agent, self.address, request, directory=scratch, is_shown=is_verbose)

    def _plan(self, session: HistorySession, answers: Iterator[Answer]) -> RestorePlan:
        """Return the storage's plan. Raises RemotePortTaken, CommandFailed, MalformedMessage, and a refusal's error."""
        plan = next(answers, None)
        if plan is None:
            session.require_answer()
        if not isinstance(plan, RestorePlan):
            raise MalformedMessage(f"storage {self.address.name} answered with a {type(plan).__name__}, not a plan")
        return plan

    def _prepare(self, plan: RestorePlan, planned: PlannedRestore, scratch: Path, stack: ExitStack) -> RestoreTransfer:
        prepared = PreparedTarget.prepare(
            self.agent, self.job, planned.target, plan, stack, differing=self.differing, kinds=self.kinds
        )
        self.verification = Verification(
            prepared.staging.offered,
            has_xxh128=plan.is_by_xxh128,
            open_file=prepared.open_file,
            spool_directory=scratch,
            holds_attributes=set(self.kinds) == file_metadata.EVERY_KIND,
        )
        stack.callback(self.verification.close)
        return RestoreTransfer(plan, planned, prepared, self.verification)

    def _received(self, path: bytes, checksum: bytes, size_bytes: int) -> None:
        if self.verification is not None:
            self.verification.received(path, checksum, size_bytes)

    # --- the transfer

    def _watch(self, transfer: RestoreTransfer, reader: AnswerReader) -> None:
        """Wait until the storage's answers end, the caller cancels, or a limit is exceeded."""
        reader.start()
        pause_seconds = 0.01
        while reader.is_alive():
            reader.join(pause_seconds)
            # The end of a short restore is noticed at once.
            pause_seconds = min(2 * pause_seconds, _POLL_SECONDS)
            self.callbacks.on_progress(transfer.progress())
            if self.callbacks.is_cancelled():
                transfer.is_cancelled = True
                return
            self._require_as_planned(transfer, reader)
            if reader.problem is not None:
                return
            if time.monotonic() - transfer.begin > self.agent.tunnel.session_timeout_seconds:
                reader.problem = RestoreFailed(
                    f"the restore did not end within {self.agent.tunnel.session_timeout_seconds:g} s",
                    hint="session_timeout_seconds sets the limit",
                )
                return
        self._require_as_planned(transfer, reader)

    def _require_as_planned(self, transfer: RestoreTransfer, reader: AnswerReader) -> None:
        """Record a problem where the storage sends, or names, more than its plan said (threats S4)."""
        planned, found = transfer.planned, transfer.verification
        if planned.files is None or reader.problem is not None:
            return
        if max(found.received_files, found.entries) > (planned.files_limit or 0) or (
            planned.bytes_limit is not None and found.received_bytes > planned.bytes_limit
        ):
            reader.problem = RestoreFailed(
                f"storage {self.address.name} sends more than its plan said: {planned.files:,} files, "
                f"{size(planned.size_bytes or 0)}"
            )

    # --- the end

    def _place(self, transfer: RestoreTransfer, problems: ProblemList) -> int:
        """Move the received files to their places, and return the number of deleted files."""
        prepared = transfer.target
        placement = Placement(
            prepared.descriptor,
            prepared.staging,
            prepared.basis_files,
            is_in_manifest=transfer.verification.is_in_manifest,
            overwrite=self.job.overwrite,
            # The target may have the last copy of a file that the storage has lost.
            delete=self.job.delete and not self._lost_count,
            is_complete=self._is_complete,
            temporary=prepared.temporary,
            partial=prepared.partial,
            untouched=prepared.untouched,
            kinds=prepared.kinds,
            recorded_kinds=transfer.plan.kept,
        )
        placement.run(self.job.paths, transfer.plan.parents)
        if self._is_complete:
            prepared.staging.remove()
        problems.extend(placement.problems)
        if placement.kept_back:
            files = count_of(placement.kept_back, "file")
            problems.add_general(f"{files} arrived, and the storage did not say what they are: not restored yet")
        planned, found = transfer.planned, transfer.verification
        missing = (planned.files or 0) - found.files - self._lost_count
        # Unless everything is overwritten, the storage does not report the files that stay.
        if self._is_complete and self.job.overwrite == "always" and planned.files is not None and missing > 0:
            problems.add_general(
                f"{count_of(missing, 'file')} of the {planned.files:,} that the storage announced did not come"
            )
        return placement.deleted

    @property
    def _end(self) -> RestoreEnd | None:
        return None if self.reader is None else self.reader.end

    @property
    def _lost_count(self) -> int:
        return 0 if self._end is None else max(self._end.lost_count, len(self._end.lost))

    @property
    def _is_complete(self) -> bool:
        """True where the storage's rsync ended well."""
        return (
            self.reader is not None
            and self.reader.problem is None
            and self.reader.end is not None
            and self.reader.end.rsync_exit_code == 0
        )

    def _report_lost(self, problems: ProblemList) -> None:
        """Add the files that the storage's catalog lists and its snapshot lacks to the problems."""
        end = self._end
        if end is None:
            return
        for path in end.too_long:
            problems.add(path_bytes(path), "is too long to be restored by its name: restore a directory above it")
        if not self._lost_count:
            return
        for path in end.lost:
            problems.add(path_bytes(path), "is lost: the storage's catalog lists it, and the snapshot lacks it")
        problems.add_unnamed(self._lost_count - len(end.lost))
        if self.job.delete:
            problems.add_general("nothing was deleted, as the snapshot lacks files that may still be here")

    def _result(
        self, transfer: RestoreTransfer, not_placed: ProblemList, deleted: int, warnings: tuple[str, ...]
    ) -> RestoreResult:
        planned, found, end = transfer.planned, transfer.verification, self._end
        problems = [*found.problems.named, *not_placed.named]
        unnamed = found.problems.count + not_placed.count - len(problems)
        if self.reader is not None and self.reader.problem is not None:
            problems.insert(0, self.reader.problem.message)
        elif end is None and not transfer.is_cancelled:
            problems.insert(0, f"the session with storage {self.address.name} broke")
        elif end is not None and end.rsync_exit_code != 0:
            lines = [one_line(line)[:1000] for line in end.last_lines[-20:]]
            problems[:0] = [one_line(end.meaning)[:1000], *lines]
        state: Literal["whole", "partial", "cancelled"] = "partial" if problems or found.mismatched else "whole"
        if transfer.is_cancelled:
            state = "cancelled"
        elif state == "partial" and not found.files and not (self._is_complete and self._lost_count):
            raise RestoreFailed(
                f"nothing was restored from {planned.snapshot}: {problems[0]}", details="\n".join(problems[1:])
            )
        kept = 0
        if self.job.overwrite != "always" and planned.files is not None:
            kept = max(0, planned.files - found.files)
        return RestoreResult(
            state,
            planned.snapshot,
            planned.target,
            files=found.files,
            size_bytes=found.size_bytes,
            verified=found.verified,
            mismatched=found.mismatched,
            unverifiable=found.unverifiable,
            kept=kept,
            deleted=deleted,
            warnings=warnings,
            problems=tuple(problems),
            further_problems=unnamed,
            seconds=time.monotonic() - transfer.begin,
            owners_restored=os.geteuid() == 0,
        )
