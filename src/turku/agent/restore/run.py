"""Getting files back: a tunnel, one staging directory that can be written, and a storage that pushes into it.

The storage says first what it would write; whoever asked approves; only then is there a module. What comes is compared
with the manifest while it comes. When nobody writes any more it is moved to its place (``placement.py``). Until then
the target is as it was, so that a restore may be killed at any moment, and the next one goes on.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from turku.agent.capture import excluded_paths
from turku.agent.config.model import AgentConfig
from turku.agent.config.sources import SourceConfig
from turku.agent.restore import content_comparison, staging_directory, target
from turku.agent.restore import session as history_session
from turku.agent.restore.placement import file_metadata
from turku.agent.restore.placement.basis_files import BasisFiles
from turku.agent.restore.placement.placement import Placement
from turku.agent.restore.placement.sparse_files import SparseFiles
from turku.agent.restore.placement.unsupported_attributes import UnsupportedAttributes
from turku.agent.restore.problems import ProblemList
from turku.agent.restore.progress import PlannedRestore, RestoreProgress, RestoreResult, count_of
from turku.agent.restore.session import HistorySession
from turku.agent.restore.staging_directory import StagingDirectory
from turku.agent.restore.verification import Verification
from turku.agent.rsyncd import daemon as rsync_daemon
from turku.agent.rsyncd import receiving_daemon
from turku.agent.rsyncd.module import Module
from turku.agent.rsyncd.receiving_daemon import ReceivingDaemon
from turku.agent.ssh_tunnel import Address, RemotePortTaken
from turku.core import durable
from turku.core.filesystem import removal
from turku.core.log import one_line
from turku.core.units import size
from turku.errors import CommandFailed, InvalidValue, MalformedMessage, RestoreFailed, TurkuError
from turku.policy import names
from turku.protocol import rsync_checksums
from turku.protocol.messages import StorageAddress
from turku.protocol.restore_messages import (
    MODULE,
    PARTIAL_DIRECTORY,
    REMARK_LIMIT,
    TEMPORARY_DIRECTORY,
    Answer,
    Deleted,
    FileRestoreRequest,
    HistoryRequest,
    Manifest,
    RestoreEnd,
    RestorePlan,
    Settable,
    SnapshotChoice,
    Unset,
    WithHoles,
    path_bytes,
    wire_path,
)

__all__ = ["PlannedRestore", "RestoreJob", "RestoreProgress", "RestoreResult", "discard", "restore"]

_PORT_ATTEMPTS = 5
_LOOK_SECONDS = 0.25
_END_TIMEOUT_SECONDS = 10.0
_MORE_BYTES = 64 * 1024**2
_MORE_FILES = 1000
"""So much more than its plan said, beside a tenth of that, a storage may send: files may have changed since."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RestoreJob:
    """What is to be restored from where to where."""

    source: str
    storage: StorageAddress
    target: Path | None
    """An absolute directory, which stands for the source's own; made where it is missing. None: a new one."""
    snapshot: SnapshotChoice = field(default_factory=SnapshotChoice)
    paths: tuple[bytes, ...] = ()
    """Relative, as ``names.path_inside`` has them; none: all of the source."""
    overwrite: Literal["never", "older", "always"] = "always"
    delete: bool = False
    hard_links: bool = False
    compare_contents: bool = False
    of_machine: str | None = None
    request: str | None = None
    below: Path = field(default_factory=Path.cwd)
    """Where a new directory is made."""

    def message(
        self, agent: AgentConfig, *, list_only: bool = False, sets: list[Settable] | None = None
    ) -> FileRestoreRequest:
        """What the storage is asked for."""
        return FileRestoreRequest(
            self.source,
            self.snapshot,
            [wire_path(path) for path in self.paths],
            overwrite=self.overwrite,
            delete=self.delete,
            hard_links=self.hard_links,
            list_only=list_only,
            knows_xxh128=rsync_checksums.knows_xxh128(agent.rsyncd.rsyncd_command),
            of_machine=self.of_machine,
            request=self.request,
            temporary=self.temporary(agent),
            sets=sets,
            # Others may not write into files that came without permission to.
            digs_holes=os.geteuid() == 0,
        )

    def source_here(self, agent: AgentConfig) -> SourceConfig | None:
        """Return this machine's own source that is restored; None for another machine's."""
        return agent.sources.get(self.source) if self.of_machine is None else None

    def temporary(self, agent: AgentConfig) -> str:
        """The name that the storage's rsync gives to what is half written: the same for each run of one command.

        Nobody who names files knows it beforehand, as what has it in the source would be taken for half written too.
        """
        return staging_directory.secret_name(agent, self.digest(""))

    def digest(self, snapshot: str) -> str:
        """What tells whether an earlier run received files for the same restore."""
        parts = (
            self.storage.name,
            self.source,
            snapshot,
            self.overwrite,
            str((self.delete, self.hard_links, self.of_machine)),
            *map(os.fsdecode, self.paths),
        )
        return hashlib.sha256(b"\0".join(map(os.fsencode, parts))).hexdigest()


def restore(
    agent: AgentConfig,
    job: RestoreJob,
    *,
    on_progress: Callable[[RestoreProgress], None] = lambda _progress: None,
    approve: Callable[[PlannedRestore], bool] = lambda _plan: True,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> RestoreResult:
    """How it ended, once anything was restored.

    ``approve`` may ask a person; ``on_progress`` and ``is_cancelled`` are called a few times a second, from here.
    Raises NotInHistory, RestoreFailed, StorageNotTrusted, InvalidValue, LockHeld, CommandFailed, ApiRefused, ...: then
    nothing was.
    """
    address = history_session.trusted_address(agent, job.storage)
    details = ""
    job, differing = content_comparison.find_differing(agent, job, address)
    with history_session.scratch(agent, "restore") as directory:
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            scratch = directory / f"attempt-{attempt}"
            scratch.mkdir(mode=0o700)
            try:
                asker = _Callbacks(on_progress, approve, is_cancelled)
                return _Attempt(agent, job, address, asker, differing=differing).run(scratch)
            except RemotePortTaken as error:
                _LOG.info("%s; trying another", error.message)
                details = error.details
    raise CommandFailed(f"storage {address.name} could not listen on any of {_PORT_ATTEMPTS} ports", details=details)


def discard(agent: AgentConfig, directory: Path) -> None:
    """Remove what an interrupted restore into the directory left: nobody will go on with it."""
    with suppress(TurkuError), target.locked(directory) as descriptor:
        staging_directory.discard(agent, descriptor, directory)


def planned_restore(agent: AgentConfig, job: RestoreJob, told: RestorePlan, storage_name: str) -> PlannedRestore:
    """What the storage's words come to on this machine. Raises MalformedMessage, RestoreFailed."""
    try:
        snapshot = names.storage_name(told.snapshot)
    except InvalidValue as error:
        raise MalformedMessage(f"storage {storage_name} names a snapshot that {error.message}") from error
    directory = job.target
    if directory is None:
        # Made of a name that was just checked: it is one directory below ours.
        directory = job.below / f"{job.source}-restored-{snapshot.removeprefix(f'{job.source}_')}"
    return PlannedRestore(
        job.source,
        snapshot,
        None if told.moment is None else one_line(told.moment)[:100],
        told.files,
        told.size_bytes,
        directory,
        target.is_empty(agent, directory),
        staging_directory.is_interrupted(agent, directory),
        tuple(one_line(remark)[:REMARK_LIMIT] for remark in told.remarks),
        told.copy_bytes if told.copy_bytes is not None else told.size_bytes,
    )


@dataclass(frozen=True)
class _Callbacks:
    """Who wants the restore."""

    on_progress: Callable[[RestoreProgress], None]
    approve: Callable[[PlannedRestore], bool]
    is_cancelled: Callable[[], bool]


@dataclass
class _Attempt:
    """One session."""

    agent: AgentConfig
    job: RestoreJob
    address: Address
    asker: _Callbacks
    differing: Collection[bytes] = ()
    verification: Verification | None = None
    end: RestoreEnd | None = None
    problem: TurkuError | None = None
    reader: threading.Thread | None = None
    settable: tuple[Settable, ...] = ()
    unset: UnsupportedAttributes = field(default_factory=UnsupportedAttributes)
    with_holes: SparseFiles = field(default_factory=SparseFiles)

    def run(self, scratch: Path) -> RestoreResult:
        self.settable = file_metadata.supported_kinds(
            self.job.target or self.job.below, self.agent.rsyncd.rsyncd_command
        )
        with ExitStack() as kept:
            self.unset = kept.enter_context(UnsupportedAttributes(scratch))
            with receiving_daemon.serve(self.agent, scratch, self._received) as daemon:
                module = Module(MODULE, "/", writable=True)
                with self._opened(daemon, module, scratch) as session:
                    answers = session.answers()
                    told = self._told(session, answers)
                    plan = planned_restore(self.agent, self.job, told, self.address.name)
                    if not self.asker.approve(plan):
                        session.close()
                        return RestoreResult("cancelled", plan.snapshot, plan.target)
                    self._require_room(plan)
                    landing = _PreparedTarget.prepared(
                        self.agent, self.job, plan, told, kept, differing=self.differing, kinds=self.settable
                    )
                    verification = Verification(
                        landing.staging.offered,
                        by_received=told.is_by_xxh128,
                        opened=landing.opened,
                        spool_directory=scratch,
                        holds_attributes=set(self.settable) == file_metadata.EVERY_KIND,
                    )
                    kept.callback(verification.close)
                    self.verification = verification
                    begin = time.monotonic()
                    daemon.offer(
                        replace(module, path=landing.staging.module_path),
                        may_delete=self.job.delete,
                        has_labels=told.has_labels,
                        file_limit_bytes=_with_more(plan.size_bytes, _MORE_BYTES),
                    )
                    session.release_storage()
                    is_cancelled = self._watch(answers, plan, begin)
                    if not is_cancelled:
                        session.close()
                # The tunnel is closed first, then the daemon, which has then told of the last files.
            if self.reader is not None:
                self.reader.join(_END_TIMEOUT_SECONDS)
            not_placed = ProblemList()
            deleted = 0
            if not is_cancelled:
                verification.finish(repairs_links=not rsync_daemon.can_change_root())
                self._tell_lost(not_placed)
                self.with_holes.dig_holes(landing.staging.offered, not_placed)
                self.unset.narrow_modes(landing.staging.tree, not_placed)
                placement = landing.placed(
                    # What the storage has lost may be there still, and nowhere else.
                    replace(self.job, delete=self.job.delete and not self._lost_count),
                    told,
                    verification,
                    is_whole=self._is_whole,
                )
                deleted = placement.deleted
                not_placed.extend(placement.problems)
                if placement.kept_back:
                    came = count_of(placement.kept_back, "file")
                    not_placed.add_general(
                        f"{came} arrived, and the storage did not come to say what they are: not restored yet"
                    )
                if self._lacks_files(plan, verification):
                    missing = count_of((plan.files or 0) - verification.files - self._lost_count, "file")
                    not_placed.add_general(f"{missing} of the {plan.files:,} that the storage announced did not come")
            outcome = self._outcome(plan, verification, begin, not_placed, deleted, is_cancelled=is_cancelled)
            self.asker.on_progress(self._progress(plan, begin))
            return outcome

    def _lacks_files(self, plan: PlannedRestore, verification: Verification) -> bool:
        # Where not everything is overwritten, what stays as it was is not told of.
        is_told = self._is_whole and self.job.overwrite == "always" and plan.files is not None
        return is_told and verification.files + self._lost_count < (plan.files or 0)

    @property
    def _lost_count(self) -> int:
        return 0 if self.end is None else max(self.end.lost_count, len(self.end.lost))

    def _tell_lost(self, problems: ProblemList) -> None:
        """Add what the storage's catalog lists and its snapshot lacks to the problems."""
        if self.end is not None:
            for path in self.end.too_long:
                problems.add(path_bytes(path), "is too long to be restored by its name: restore a directory above it")
        if self.end is None or not self._lost_count:
            return
        for path in self.end.lost:
            problems.add(path_bytes(path), "is lost: the storage's catalog lists it, and the snapshot lacks it")
        problems.add_uncounted_names(self._lost_count - len(self.end.lost))
        if self.job.delete:
            problems.add_general("nothing was deleted, as the snapshot lacks files that may still be here")

    @property
    def _is_whole(self) -> bool:
        """Whether the storage's rsync came to a good end."""
        return self.problem is None and self.end is not None and self.end.rsync_exit_code == 0

    def _opened(self, daemon: ReceivingDaemon, module: Module, scratch: Path) -> AbstractContextManager[HistorySession]:
        is_verbose = _LOG.isEnabledFor(logging.DEBUG)
        request = HistoryRequest(
            "restore_files",
            restore_files=self.job.message(self.agent, sets=list(self.settable)),
            port=daemon.port,
            module=module.credentials,
            verbose=is_verbose,
        )
        return history_session.opened(self.agent, self.address, request, directory=scratch, is_shown=is_verbose)

    def _told(self, session: HistorySession, answers: Iterator[Answer]) -> RestorePlan:
        """The storage's plan. Raises what it was refused with, RemotePortTaken, CommandFailed, MalformedMessage."""
        told = next(answers, None)
        if told is None:
            session.require_answer()
        if not isinstance(told, RestorePlan):
            raise MalformedMessage(f"storage {self.address.name} answered with a {type(told).__name__}, not a plan")
        return told

    def _require_room(self, plan: PlannedRestore) -> None:
        """Raise RestoreFailed where all is new, and there is not room enough for it."""
        needed = plan.copy_bytes
        if needed is None or not plan.is_target_empty or plan.was_interrupted:
            return
        place = plan.target
        while not place.exists() and place != place.parent:
            place = place.parent
        with suppress(OSError):
            usage = shutil.disk_usage(place)
            # A file system without a size of its own, as one in memory may be, says 0 of both.
            if usage.total and usage.free < needed:
                raise RestoreFailed(
                    f"{size(needed)} are to be restored, and {place} has {size(usage.free)} free",
                    hint="--to names another directory; paths restore a part",
                )

    def _read(self, answers: Iterator[Answer]) -> None:
        """Take the storage's answers to their end; what is wrong with them ends the restore, not this program."""
        verification = self.verification
        try:
            for answer in answers:
                if isinstance(answer, Manifest) and verification is not None:
                    for entry in answer.entries:
                        verification.expect(entry)
                elif isinstance(answer, WithHoles):
                    self.with_holes.add(answer.paths)
                elif isinstance(answer, Unset):
                    for unset in answer.entries:
                        self.unset.add(unset)
                elif isinstance(answer, Deleted):
                    # What is deleted here is counted here.
                    continue
                elif isinstance(answer, RestoreEnd):
                    self.end = answer
                    return
        except TurkuError as error:
            # What ended it comes first: an answer that is cut off comes of that.
            self.problem = self.problem or error
        except (OSError, ValueError) as error:
            _LOG.debug("the storage's answers ended: %s", error)

    def _watch(self, answers: Iterator[Answer], plan: PlannedRestore, begin: float) -> bool:
        """Wait for the end of the answers; whether it was cancelled before."""
        self.reader = reader = threading.Thread(target=self._read, args=(answers,), daemon=True)
        reader.start()
        pause_seconds = 0.01
        while reader.is_alive():
            reader.join(pause_seconds)
            # Short ones are noticed at once.
            pause_seconds = min(2 * pause_seconds, _LOOK_SECONDS)
            self.asker.on_progress(self._progress(plan, begin))
            if self.asker.is_cancelled():
                return True
            self._require_as_planned(plan)
            if self.problem is not None:
                return False
            if time.monotonic() - begin > self.agent.tunnel.session_timeout_seconds:
                self.problem = RestoreFailed(
                    f"it did not end within {self.agent.tunnel.session_timeout_seconds:g} s",
                    hint="session_timeout_seconds sets the limit",
                )
                return False
        self._require_as_planned(plan)
        return False

    def _require_as_planned(self, plan: PlannedRestore) -> None:
        """Take note of it where the storage sends, or names, more than it said it would (threats S4)."""
        found = self.verification
        if found is None or plan.files is None or self.problem is not None:
            return
        files, size_bytes = _with_more(plan.files, _MORE_FILES), _with_more(plan.size_bytes, _MORE_BYTES)
        if max(found.received_files, found.entries) > (files or 0) or (
            size_bytes is not None and found.received_bytes > size_bytes
        ):
            self.problem = RestoreFailed(
                f"storage {self.address.name} sends more than its plan said: {plan.files:,} files, "
                f"{size(plan.size_bytes or 0)}"
            )

    def _received(self, path: bytes, checksum: bytes, size_bytes: int) -> None:
        if self.verification is not None:
            self.verification.received(path, checksum, size_bytes)

    def _progress(self, plan: PlannedRestore, begin: float) -> RestoreProgress:
        verification = self.verification
        return RestoreProgress(
            files=verification.files if verification else 0,
            size_bytes=verification.size_bytes if verification else 0,
            files_total=plan.files,
            size_total_bytes=plan.size_bytes,
            seconds=time.monotonic() - begin,
        )

    def _outcome(
        self,
        plan: PlannedRestore,
        found: Verification,
        begin: float,
        not_placed: ProblemList,
        deleted: int,
        *,
        is_cancelled: bool,
    ) -> RestoreResult:
        problems = [*found.problems.named, *not_placed.named]
        unnamed = found.problems.count + not_placed.count - len(problems)
        if self.problem is not None:
            problems.insert(0, self.problem.message)
        elif self.end is None and not is_cancelled:
            problems.insert(0, f"the session with storage {self.address.name} broke")
        elif self.end is not None and self.end.rsync_exit_code != 0:
            lines = [one_line(line)[:1000] for line in self.end.last_lines[-20:]]
            problems[:0] = [one_line(self.end.meaning)[:1000], *lines]
        state: Literal["whole", "partial", "cancelled"] = "partial" if problems or found.mismatched else "whole"
        if is_cancelled:
            state = "cancelled"
        elif state == "partial" and not found.files and not (self._is_whole and self._lost_count):
            raise RestoreFailed(
                f"nothing was restored from {plan.snapshot}: {problems[0]}", details="\n".join(problems[1:])
            )
        left = 0
        if self.job.overwrite != "always" and plan.files is not None:
            left = max(0, plan.files - found.files)
        return RestoreResult(
            state,
            plan.snapshot,
            plan.target,
            files=found.files,
            size_bytes=found.size_bytes,
            verified=found.verified,
            mismatched=found.mismatched,
            unverifiable=found.unverifiable,
            kept=left,
            deleted=deleted,
            warnings=tuple(self.unset.warnings()),
            problems=tuple(problems),
            further_problems=unnamed,
            seconds=time.monotonic() - begin,
            owners_restored=os.geteuid() == 0,
        )


@dataclass(frozen=True)
class _PreparedTarget:
    """Where what a storage sends lands, and from where it is moved to its place."""

    agent: AgentConfig
    target: int
    staging: StagingDirectory
    basis_files: BasisFiles
    temporary: bytes
    partial: bytes
    kinds: frozenset[Settable]
    """The attributes that can be set in the target."""
    untouched: frozenset[bytes] = frozenset()
    """Directories of the target that stay as they are."""

    @classmethod
    def prepared(
        cls,
        agent: AgentConfig,
        job: RestoreJob,
        plan: PlannedRestore,
        told: RestorePlan,
        kept: ExitStack,
        *,
        differing: Collection[bytes],
        kinds: Collection[Settable],
    ) -> _PreparedTarget:
        """Hold the target until ``kept`` ends, and have a staging directory in it. Raises RestoreFailed, LockHeld."""
        is_new = not os.path.lexists(plan.target)
        descriptor = kept.enter_context(target.locked(plan.target))
        digest = job.digest(plan.snapshot)
        staging = kept.enter_context(
            StagingDirectory.opened(agent, descriptor, plan.target, digest, is_target_new=is_new)
        )
        temporary, partial = TEMPORARY_DIRECTORY, PARTIAL_DIRECTORY
        ours = job.temporary(agent)
        if told.temporary == ours:
            temporary, partial = ours, f"{ours}-partial"
        landing = cls(
            agent,
            descriptor,
            staging,
            BasisFiles(),
            temporary.encode(),
            partial.encode(),
            untouched=excluded_paths.protected_paths(agent, job.source_here(agent), plan.target),
            kinds=frozenset(kinds),
        )
        kept.callback(landing.basis_files.close)
        # Where it is interrupted, the same command goes on with what arrived: that must then be all there is.
        kept.callback(landing._keep_what_arrived)
        try:
            removal.remove(staging.tree, landing.temporary)
            os.mkdir(landing.temporary, 0o700, dir_fd=staging.tree)
            landing.basis_files.create(
                descriptor,
                staging.tree,
                job.paths,
                staging_name=staging.name,
                overwrite=job.overwrite,
                delete=job.delete,
                differing=differing,
                untouched=landing.untouched,
                kinds=kinds,
                before_first=lambda: staging.record_basis_files(are_there=True),
            )
        except OSError as error:
            raise RestoreFailed(
                f"cannot prepare a restore into {plan.target}: {error.strerror or error}",
                hint="free space and inodes are needed there; --to names another directory",
            ) from error
        return landing

    def opened(self, path: bytes) -> int:
        """Open the content that the path will have. Raises OSError."""
        return self.basis_files.open_content(self.target, self.staging.offered, path)

    def placed(self, job: RestoreJob, told: RestorePlan, verification: Verification, *, is_whole: bool) -> Placement:
        """Move what arrived to its place; what only that was needed for goes."""
        placement = Placement(
            self.target,
            self.staging,
            self.basis_files,
            is_named=verification.is_in_manifest,
            overwrite=job.overwrite,
            delete=job.delete,
            is_whole=is_whole,
            temporary=self.temporary,
            partial=self.partial,
            untouched=self.untouched,
            kinds=self.kinds,
            kept=told.kept,
        )
        placement.run(job.paths, told.parents)
        if is_whole:
            self.staging.remove()
        return placement

    def _keep_what_arrived(self) -> None:
        if not self.basis_files.count or self.staging.is_removed:
            return
        try:
            self.basis_files.remove(self.staging.tree)
            # Before it is remembered that none is left: after a power failure one could be taken for what arrived.
            durable.sync_file_system_of(self.staging.tree)
            self.staging.record_basis_files(are_there=False)
        except (OSError, TurkuError) as error:
            # The next restore into the target then begins anew.
            _LOG.warning("what arrived cannot be used by a later run: %s", error)


def _with_more(figure: int | None, least: int) -> int | None:
    return None if figure is None else figure + figure // 10 + least
