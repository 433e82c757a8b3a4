"""Getting files back: a tunnel, one writable module below the target, and a storage that pushes into it.

The storage says first what it would write; whoever asked approves; only then is there a module. What comes is compared
with the manifest while it comes. What is half written has other names, so that a restore may be killed at any moment,
and the next one goes on.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from turku.agent import history_session, receiving_daemon, rsyncd, target
from turku.agent.configuration import Agent
from turku.agent.history_session import HistorySession
from turku.agent.progress import Outcome, Plan, Progress
from turku.agent.receiving_daemon import ReceivingDaemon
from turku.agent.rsyncd import Module
from turku.agent.tunnel import Address, RemotePortTaken
from turku.agent.verification import Verification
from turku.core import rsync_checksums
from turku.core.listing import size
from turku.core.log import one_line
from turku.errors import CommandFailed, MalformedMessage, PolicyError, RestoreFailed, TurkuError
from turku.policy import names
from turku.protocol.messages import StorageAddress
from turku.protocol.restore_messages import (
    MODULE,
    Answer,
    Deleted,
    HistoryRequest,
    Manifest,
    RecoverEnd,
    RecoverPlan,
    RecoverRequest,
    SnapshotChoice,
    wire_path,
)

__all__ = ["Order", "Outcome", "Plan", "Progress", "recover"]

_PORT_ATTEMPTS = 5
_LOOK_SECONDS = 0.25
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
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

    def message(self, agent: Agent, *, list_only: bool = False) -> RecoverRequest:
        """What the storage is asked for."""
        return RecoverRequest(
            self.source,
            self.snapshot,
            [wire_path(path) for path in self.paths],
            overwrite=self.overwrite,
            delete=self.delete,
            hard_links=self.hard_links,
            list_only=list_only,
            compare_contents=self.compare_contents,
            knows_xxh128=rsync_checksums.knows_xxh128(agent.rsyncd_command),
            of_machine=self.of_machine,
            request=self.request,
        )


def recover(
    agent: Agent,
    order: Order,
    *,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
    approve: Callable[[Plan], bool] = lambda _plan: True,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Outcome:
    """How it ended, once anything was restored.

    ``approve`` may ask a person; ``on_progress`` and ``is_cancelled`` are called a few times a second, from here.
    Raises NotInHistory, RestoreFailed, StorageNotTrusted, PolicyError, LockHeld, CommandFailed, ApiRefused, ...: then
    nothing was.
    """
    address = history_session.trusted(agent, order.storage)
    details = ""
    with history_session.scratch(agent, "recover") as directory:
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            scratch = directory / f"attempt-{attempt}"
            scratch.mkdir(mode=0o700)
            try:
                return _Run(agent, order, address, _Asker(on_progress, approve, is_cancelled)).run(scratch)
            except RemotePortTaken as error:
                _LOG.info("%s; trying another", error.message)
                details = error.details
    raise CommandFailed(f"storage {address.name} could not listen on any of {_PORT_ATTEMPTS} ports", details=details)


def planned(order: Order, told: RecoverPlan, storage_name: str) -> Plan:
    """What the storage's words come to on this machine. Raises MalformedMessage, RestoreFailed."""
    try:
        snapshot = names.storage_name(told.snapshot)
    except PolicyError as error:
        raise MalformedMessage(f"storage {storage_name} names a snapshot that {error.message}") from error
    directory = order.target
    if directory is None:
        # Made of a name that was just checked: it is one directory below ours.
        directory = order.below / f"{order.source}-restored-{snapshot.removeprefix(f'{order.source}_')}"
    return Plan(
        order.source,
        snapshot,
        None if told.moment is None else one_line(told.moment)[:100],
        told.files,
        told.size_bytes,
        directory,
        target.is_free(directory),
        target.is_interrupted(directory),
    )


@dataclass(frozen=True)
class _Asker:
    """Who wants the restore."""

    on_progress: Callable[[Progress], None]
    approve: Callable[[Plan], bool]
    is_cancelled: Callable[[], bool]


@dataclass
class _Run:
    """One session."""

    agent: Agent
    order: Order
    address: Address
    asker: _Asker
    verification: Verification | None = None
    end: RecoverEnd | None = None
    deleted: int = 0
    problem: TurkuError | None = None

    def run(self, scratch: Path) -> Outcome:
        with ExitStack() as kept:
            with receiving_daemon.serve(self.agent, scratch, self._received) as daemon:
                module = Module(MODULE, "/", writable=True)
                with self._opened(daemon, module, scratch) as session:
                    answers = session.answers()
                    told = self._told(session, answers)
                    plan = planned(self.order, told, self.address.name)
                    if not self.asker.approve(plan):
                        session.leave()
                        return Outcome("cancelled", plan.snapshot, plan.target)
                    self._require_room(plan)
                    held = kept.enter_context(target.held(plan.target))
                    begin = time.monotonic()
                    held.prepare(self.order.paths, told.parents)
                    verification = Verification(plan.target, by_received=told.is_by_xxh128, on_seen=held.saw)
                    kept.callback(verification.close)
                    self.verification = verification
                    daemon.offer(
                        replace(module, path=str(plan.target)),
                        paths=self.order.paths,
                        closed=held.links(self.order.paths),
                        may_delete=self.order.delete,
                    )
                    session.go()
                    is_cancelled = self._watch(answers, plan, begin)
                    if not is_cancelled:
                        session.leave()
                # The tunnel is closed first, then the daemon, which has then told of the last files.
            verification.finish(repairs_links=not rsyncd.can_change_root())
            outcome = self._outcome(plan, verification, begin, is_cancelled=is_cancelled)
            held.finish(is_whole=outcome.state == "whole")
            self.asker.on_progress(self._progress(plan, begin))
            return outcome

    def _opened(self, daemon: ReceivingDaemon, module: Module, scratch: Path) -> AbstractContextManager[HistorySession]:
        is_verbose = _LOG.isEnabledFor(logging.DEBUG)
        request = HistoryRequest(
            "recover",
            recover=self.order.message(self.agent),
            port=daemon.port,
            module=module.credentials,
            verbose=is_verbose,
        )
        return history_session.opened(self.agent, self.address, request, directory=scratch, is_shown=is_verbose)

    def _told(self, session: HistorySession, answers: Iterator[Answer]) -> RecoverPlan:
        """The storage's plan. Raises what it was refused with, RemotePortTaken, CommandFailed, MalformedMessage."""
        told = next(answers, None)
        if told is None:
            session.require_answer()
        if not isinstance(told, RecoverPlan):
            raise MalformedMessage(f"storage {self.address.name} answered with a {type(told).__name__}, not a plan")
        return told

    def _require_room(self, plan: Plan) -> None:
        """Raise RestoreFailed where all is new, and there is not room enough for it."""
        if plan.size_bytes is None or not plan.is_free or plan.was_interrupted:
            return
        place = plan.target
        while not place.exists() and place != place.parent:
            place = place.parent
        with suppress(OSError):
            free = shutil.disk_usage(place).free
            if free < plan.size_bytes:
                raise RestoreFailed(
                    f"{size(plan.size_bytes)} are to be restored, and {place} has {size(free)} free",
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
                elif isinstance(answer, Deleted):
                    self.deleted += len(answer.paths)
                elif isinstance(answer, RecoverEnd):
                    self.end = answer
                    return
        except TurkuError as error:
            self.problem = error
        except (OSError, ValueError) as error:
            _LOG.debug("the storage's answers ended: %s", error)

    def _watch(self, answers: Iterator[Answer], plan: Plan, begin: float) -> bool:
        """Wait for the end of the answers; whether it was cancelled before."""
        reader = threading.Thread(target=self._read, args=(answers,), daemon=True)
        reader.start()
        pause_seconds = 0.01
        while reader.is_alive():
            reader.join(pause_seconds)
            # Short ones are noticed at once.
            pause_seconds = min(2 * pause_seconds, _LOOK_SECONDS)
            self.asker.on_progress(self._progress(plan, begin))
            if self.asker.is_cancelled():
                return True
            if time.monotonic() - begin > self.agent.session_timeout_seconds:
                self.problem = RestoreFailed(
                    f"it did not end within {self.agent.session_timeout_seconds:g} s",
                    hint="session_timeout_seconds sets the limit",
                )
                return False
        return False

    def _received(self, path: bytes, checksum: bytes, size_bytes: int) -> None:
        if self.verification is not None:
            self.verification.received(path, checksum, size_bytes)

    def _progress(self, plan: Plan, begin: float) -> Progress:
        verification = self.verification
        return Progress(
            files=verification.files if verification else 0,
            size_bytes=verification.size_bytes if verification else 0,
            files_total=plan.files,
            size_total_bytes=plan.size_bytes,
            seconds=time.monotonic() - begin,
        )

    def _outcome(self, plan: Plan, found: Verification, begin: float, *, is_cancelled: bool) -> Outcome:
        problems = list(found.problems)
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
        elif state == "partial" and not found.files:
            raise RestoreFailed(
                f"nothing was restored from {plan.snapshot}: {problems[0]}", details="\n".join(problems[1:])
            )
        left = 0
        if self.order.overwrite != "always" and plan.files is not None:
            left = max(0, plan.files - found.files)
        return Outcome(
            state,
            plan.snapshot,
            plan.target,
            files=found.files,
            size_bytes=found.size_bytes,
            verified=found.verified,
            mismatched=found.mismatched,
            unverifiable=found.unverifiable,
            left_alone=left,
            deleted=self.deleted,
            problems=tuple(problems),
            seconds=time.monotonic() - begin,
            owners_restored=os.geteuid() == 0,
        )
