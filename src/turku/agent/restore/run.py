"""The run of a restore: a tunnel, a writable staging directory, and a storage that pushes files into it.

The storage announces its plan first. The module is offered only after the caller has approved the plan. Received files
are compared with the manifest while others arrive. When nobody writes any more, they are moved to their places
(``placement``). Until then the target is unchanged, so a restore may be killed at any moment, and the next one resumes.
"""

import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from turku.agent.config.model import AgentConfig, AgentState
from turku.agent.restore import file_metadata, manifest
from turku.agent.restore import session as history_session
from turku.agent.restore.answers import AnswerReader, UnsupportedAttributes
from turku.agent.restore.job import PlannedRestore, RestoreJob, planned_restore
from turku.agent.restore.placement.placement import Placement
from turku.agent.restore.result import ProblemList, RestoreProgress, RestoreResult
from turku.agent.restore.session import HistorySession
from turku.agent.restore.staging import staging_directory, target
from turku.agent.restore.staging.target import PreparedTarget
from turku.agent.restore.verification import Verification
from turku.agent.rsyncd import daemon as rsync_daemon
from turku.agent.rsyncd import receiving_daemon
from turku.agent.rsyncd.config_text import Module
from turku.agent.tunnel import ssh_tunnel
from turku.agent.tunnel.trusted_storages import Address
from turku.core.log import one_line
from turku.core.units import count_of, size
from turku.errors import MalformedMessage, RestoreFailed, TurkuError
from turku.protocol.restore_messages import MODULE, Answer, HistoryRequest, RestorePlan, Settable, path_bytes

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
    job, differing = manifest.find_differing(agent, job, address)
    attempt = _Attempt(agent, job, address, differing, on_progress, approve, is_cancelled)
    with history_session.scratch(agent, "file-restore") as directory:
        return ssh_tunnel.with_free_port(address, directory, attempt.run)


def discard(configuration: AgentState, directory: Path) -> None:
    """Remove what an interrupted restore into the directory left, so that nothing resumes there."""
    with suppress(TurkuError), target.locked(directory) as descriptor:
        staging_directory.discard(configuration, descriptor, directory)


@dataclass
class _Attempt:
    """One attempt of a restore, in one session."""

    agent: AgentConfig
    job: RestoreJob
    address: Address
    differing: Collection[bytes]
    on_progress: Callable[[RestoreProgress], None]
    approve: Callable[[PlannedRestore], bool]
    is_cancelled: Callable[[], bool]
    verification: Verification | None = None

    def run(self, scratch: Path) -> RestoreResult:
        kinds = file_metadata.supported_kinds(self.job.target or self.job.below, self.agent.rsyncd.rsyncd_command)
        with ExitStack() as stack:
            unsupported = stack.enter_context(closing(UnsupportedAttributes(scratch)))
            module = Module(MODULE, "/", writable=True)
            # The tunnel is closed first. The daemon then ends after it has reported the last files.
            with (
                receiving_daemon.serve(self.agent, scratch, self._received) as daemon,
                self._session(daemon.port, module, scratch, kinds) as session,
            ):
                answers = session.answers()
                plan = self._plan(session, answers)
                planned = planned_restore(self.agent.state, self.job, plan, self.address.name)
                if not self.approve(planned):
                    session.close()
                    return RestoreResult("cancelled", planned.snapshot, planned.target)
                planned.require_space()
                prepared = PreparedTarget.prepare(
                    self.agent, self.job, planned.target, plan, stack, differing=self.differing, kinds=kinds
                )
                self.verification = stack.enter_context(
                    closing(
                        Verification(
                            prepared.staging.offered,
                            has_xxh128=plan.is_by_xxh128,
                            open_file=prepared.open_file,
                            spool_directory=scratch,
                            holds_attributes=set(kinds) == file_metadata.EVERY_KIND,
                        )
                    )
                )
                reader = AnswerReader(answers, self.verification, unsupported)
                transfer = _Transfer(self, plan, planned, prepared, self.verification, reader)
                daemon.offer(
                    replace(module, path=prepared.staging.module_path),
                    may_delete=self.job.delete,
                    has_labels=plan.has_labels,
                    file_limit_bytes=planned.bytes_limit,
                )
                session.release_storage()
                transfer.watch()
                if not transfer.is_cancelled:
                    session.close()
            return transfer.finish()

    def _session(
        self, port: int, module: Module, scratch: Path, kinds: Sequence[Settable]
    ) -> AbstractContextManager[HistorySession]:
        is_verbose = _LOG.isEnabledFor(logging.DEBUG)
        request = HistoryRequest(
            "restore_files",
            restore_files=self.job.message(self.agent, sets=list(kinds)),
            port=port,
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

    def _received(self, path: bytes, checksum: bytes, size_bytes: int) -> None:
        if self.verification is not None:
            self.verification.received(path, checksum, size_bytes)


@dataclass
class _Transfer:
    """The part of an attempt in which the storage sends files, and the placement of those that arrived."""

    attempt: _Attempt
    plan: RestorePlan
    planned: PlannedRestore
    target: PreparedTarget
    verification: Verification
    reader: AnswerReader
    begin: float = field(default_factory=time.monotonic)
    is_cancelled: bool = False
    problems: ProblemList = field(default_factory=ProblemList)

    def _show_progress(self) -> None:
        self.attempt.on_progress(
            RestoreProgress(
                files=self.verification.files,
                size_bytes=self.verification.size_bytes,
                files_total=self.planned.files,
                size_total_bytes=self.planned.size_bytes,
                seconds=time.monotonic() - self.begin,
            )
        )

    def watch(self) -> None:
        """Wait until the storage's answers end, the caller cancels, or a limit is exceeded."""
        reader, limit_seconds = self.reader, self.attempt.agent.tunnel.session_timeout_seconds
        reader.start()
        pause_seconds = 0.01
        while reader.is_alive():
            reader.join(pause_seconds)
            # The end of a short restore is noticed at once.
            pause_seconds = min(2 * pause_seconds, _POLL_SECONDS)
            self._show_progress()
            if self.attempt.is_cancelled():
                self.is_cancelled = True
                return
            self._require_as_planned()
            if reader.problem is not None:
                return
            if time.monotonic() - self.begin > limit_seconds:
                reader.problem = RestoreFailed(
                    f"the restore did not end within {limit_seconds:g} s", hint="session_timeout_seconds sets the limit"
                )
                return
        self._require_as_planned()

    def _require_as_planned(self) -> None:
        """Record a problem where the storage sends, or names, more than its plan said (threats S4)."""
        planned, found = self.planned, self.verification
        if planned.files is None or self.reader.problem is not None:
            return
        if max(found.received_files, found.entries) > (planned.files_limit or 0) or (
            planned.bytes_limit is not None and found.received_bytes > planned.bytes_limit
        ):
            self.reader.problem = RestoreFailed(
                f"storage {self.attempt.address.name} sends more than its plan said: {planned.files:,} files, "
                f"{size(planned.size_bytes or 0)}"
            )

    def finish(self) -> RestoreResult:
        """Move the received files to their places after the session, and return the result."""
        self.reader.join(_END_TIMEOUT_SECONDS)
        deleted = 0
        if not self.is_cancelled:
            self.verification.finish(repairs_links=not rsync_daemon.can_change_root())
            self._report_lost()
            self.reader.sparse_files.dig_holes(self.target.staging.offered, self.problems)
            self.reader.unsupported.narrow_modes(self.target.staging.tree, self.problems)
            deleted = self._place()
        result = self._result(deleted)
        self._show_progress()
        return result

    def _place(self) -> int:
        """Move the received files to their places, and return the number of deleted files."""
        prepared, planned, job = self.target, self.planned, self.attempt.job
        is_complete, lost_count = self.reader.is_complete, self.reader.lost_count
        placement = Placement(
            prepared,
            is_in_manifest=self.verification.is_in_manifest,
            overwrite=job.overwrite,
            # The target may have the last copy of a file that the storage has lost.
            delete=job.delete and not lost_count,
            is_complete=is_complete,
            recorded_kinds=self.plan.kept,
        )
        placement.run(job.paths, self.plan.parents)
        if is_complete:
            prepared.staging.remove()
        self.problems.extend(placement.problems)
        if placement.kept_back:
            files = count_of(placement.kept_back, "file")
            self.problems.add_general(f"{files} arrived, and the storage did not say what they are: not restored yet")
        missing = (planned.files or 0) - self.verification.files - lost_count
        # Unless everything is overwritten, the storage does not report the files that stay.
        if is_complete and job.overwrite == "always" and planned.files is not None and missing > 0:
            self.problems.add_general(
                f"{count_of(missing, 'file')} of the {planned.files:,} that the storage announced did not come"
            )
        return placement.deleted

    def _report_lost(self) -> None:
        """Add the files that the storage's catalog lists and its snapshot lacks to the problems."""
        end = self.reader.end
        if end is None:
            return
        for path in end.too_long:
            self.problems.add(path_bytes(path), "is too long to be restored by its name: restore a directory above it")
        for path in end.lost:
            self.problems.add(path_bytes(path), "is lost: the storage's catalog lists it, and the snapshot lacks it")
        self.problems.add_unnamed(self.reader.lost_count - len(end.lost))
        if self.reader.lost_count and self.attempt.job.delete:
            self.problems.add_general("nothing was deleted, as the snapshot lacks files that may still be here")

    def _result(self, deleted: int) -> RestoreResult:
        planned, found, end = self.planned, self.verification, self.reader.end
        problems = [*found.problems.named, *self.problems.named]
        unnamed = found.problems.count + self.problems.count - len(problems)
        if self.reader.problem is not None:
            problems.insert(0, self.reader.problem.message)
        elif end is None and not self.is_cancelled:
            problems.insert(0, f"the session with storage {self.attempt.address.name} broke")
        elif end is not None and end.rsync_exit_code != 0:
            lines = [one_line(line)[:1000] for line in end.last_lines[-20:]]
            problems[:0] = [one_line(end.meaning)[:1000], *lines]
        state: Literal["whole", "partial", "cancelled"] = "partial" if problems or found.mismatched else "whole"
        if self.is_cancelled:
            state = "cancelled"
        elif state == "partial" and not found.files and not (self.reader.is_complete and self.reader.lost_count):
            raise RestoreFailed(
                f"nothing was restored from {planned.snapshot}: {problems[0]}", details="\n".join(problems[1:])
            )
        kept = 0
        if self.attempt.job.overwrite != "always" and planned.files is not None:
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
            warnings=tuple(self.reader.unsupported.warnings()),
            problems=tuple(problems),
            further_problems=unnamed,
            seconds=time.monotonic() - self.begin,
            owners_restored=os.geteuid() == 0,
        )
