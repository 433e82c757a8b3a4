"""Restores that were asked for at the coordinator: picked up at a check-in, obeyed within ``remote_restore`` alone.

An order is a coordinator's word, and a coordinator may be hostile (threats C3): this machine's own configuration says
whether any is obeyed, and below which directories files may be written. How it goes is reported; a run that is killed
is taken for dead when its reports stay away, and a later ping picks the restore up again.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from turku.agent.config.model import AgentConfig
from turku.agent.identity import machine_identity
from turku.agent.state import var_dir
from turku.core import lock, paths, retry
from turku.core.log import one_line
from turku.errors import (
    ApiError,
    ApiForbidden,
    ApiNotFound,
    ApiUnreachable,
    InvalidValue,
    LockHeld,
    MalformedMessage,
    TurkuError,
)

if TYPE_CHECKING:
    from turku.agent.restore.plan import PlannedRestore
    from turku.agent.restore.progress import RestoreProgress
    from turku.agent.restore.result import RestoreResult
    from turku.protocol.restore_request_messages import AgentRestoreProgressAnswer, RestoreOrder, Step

LOCK_NAME = "turku-agent-remote-restore"
REPORT_SECONDS = 5.0
"""Between two reports of a restore: well within the lease that the coordinator gives."""
_MESSAGE_LIMIT = 4000
_SECOND_TRY_SECONDS = 5.0
_AT_ONCE = 50
"""Restores of one answer. A coordinator may make up more: they wait for the next ping."""
_LOG = logging.getLogger(__name__)


class NotAllowedHere(InvalidValue):
    """This machine's configuration does not allow the restore."""


def waiting_orders(agent: AgentConfig) -> msgspec.Raw:
    """The restores that wait for this machine, without a check-in. Raises as check_in.ask does."""
    from turku.protocol.messages import AgentPingRequest
    from turku.protocol.restore_request_messages import WAITING_CALL, AgentRestoresAnswer

    request = AgentPingRequest(machine=machine_identity.existing(agent).credentials)
    return agent.api.client().beyond_contract().call(WAITING_CALL, request, AgentRestoresAnswer).restores


def decode_orders(told: msgspec.Raw) -> list[RestoreOrder]:
    """The restores of an answer; a log line, and none, where they are not what they should be."""
    from turku.protocol import codec
    from turku.protocol.restore_request_messages import RestoreOrder

    try:
        return codec.decode(bytes(told), list[RestoreOrder])
    except MalformedMessage as error:
        _LOG.error("the coordinator's restores are not understood: %s", error.message)
        return []


def run(agent: AgentConfig, waiting: Sequence[RestoreOrder], stop: threading.Event) -> None:
    """Pick up one restore after the other, until ``stop``. Where another run is at work, they are left to it."""
    try:
        with lock.exclusive(var_dir.lock_directory(agent), LOCK_NAME):
            for order in waiting[:_AT_ONCE]:
                if not stop.is_set():
                    _run_one(agent, order, stop)
    except LockHeld:
        _LOG.info("a restore that was picked up before goes on")
    except TurkuError as error:
        _LOG.error("restores that wait at the coordinator: %s", error.message)


def _run_one(agent: AgentConfig, order: RestoreOrder, stop: threading.Event) -> None:
    # One that fails keeps no other waiting.
    try:
        _RemoteRestore(agent, order, stop).run()
    except TurkuError as error:
        _LOG.error("restore %s: %s", order.request, error.message)
    except Exception:
        _LOG.exception("restore %s: internal error", order.request)


def allowed_target(agent: AgentConfig, directory: str) -> Path:
    """The directory, links resolved, where the configuration allows a restore into it. Raises NotAllowedHere."""
    from turku.policy import restore_place

    if not agent.restore.remote_restore:
        raise NotAllowedHere(
            "remote_restore is not set on this machine", hint="it names the directories below which a restore may write"
        )
    try:
        wanted = restore_place.target_directory(directory)
    except InvalidValue as error:
        raise NotAllowedHere(f"the directory {error.message}") from None
    # Of what is not there yet nothing can be a link; what is there counts as what it leads to.
    resolved = _resolved(wanted)
    allowed = [_resolved(str(place)) for place in agent.restore.remote_restore]
    if not any(paths.is_within(resolved, each) for each in allowed):
        leads = "" if resolved == wanted else f", which leads to {resolved},"
        raise NotAllowedHere(f"{wanted}{leads} is not inside any directory that remote_restore names on this machine")
    return Path(resolved)


def _resolved(path: str) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError) as error:
        raise NotAllowedHere(f"{path} cannot be resolved: {error}") from None


class _RemoteRestore:
    """One restore, from its pick-up to its outcome."""

    def __init__(self, agent: AgentConfig, order: RestoreOrder, stop: threading.Event) -> None:
        self._agent = agent
        self._order = order
        self._claim = secrets.token_hex(16)
        self._api = agent.api.client().beyond_contract()
        self._stop = stop
        self._over = threading.Event()
        self._is_cancelled = False
        self._progress: RestoreProgress | None = None
        self._remarks: tuple[str, ...] = ()

    def run(self) -> None:
        """Pick the restore up and see it through. What went wrong is told to the coordinator and the log."""
        try:
            answer = self._report("picked_up")
        except ApiError as error:
            _LOG.error("restore %s: not picked up: %s", self._order.request, error.message)
            return
        if not answer.go_on:
            _LOG.info("restore %s: %s", self._order.request, one_line(answer.reason or "not to be picked up"))
            return
        try:
            target = allowed_target(self._agent, self._order.directory)
        except NotAllowedHere as error:
            _LOG.warning("restore %s is refused: %s", self._order.request, error.message)
            self._report_end("refused", f"{error.message}{f' ({error.hint})' if error.hint else ''}")
            return
        self._restore(target)

    def _restore(self, target: Path) -> None:
        reporter = threading.Thread(target=self._report_progress, name="restore progress", daemon=True)
        reporter.start()
        try:
            try:
                outcome = self._restore_twice(target)
            finally:
                self._over.set()
                reporter.join()
        except TurkuError as error:
            _LOG.error("restore %s: %s", self._order.request, error.message)
            told = "\n".join(part for part in (error.message, error.hint, error.details) if part)
            self._report_end("postponed" if error.retryable else "failed", told)
        except BaseException:
            # A fault of ours: a later ping picks it up again.
            with suppress(TurkuError):
                self._report("postponed", message="an internal error on the machine; its log has it")
            raise
        else:
            _LOG.info("restore %s: %s", self._order.request, outcome.summary)
            is_ended_here = outcome.state == "cancelled" and not self._is_cancelled
            if outcome.state == "cancelled" and self._is_cancelled:
                from turku.agent.restore import run as restore_run

                restore_run.discard(self._agent, target)
            step: Step = "postponed" if is_ended_here else outcome.state
            notes = (f"note: {each}" for each in self._remarks)
            told = "\n".join((outcome.summary, *notes, *outcome.warnings, *outcome.problems))
            self._report_end(step, told, outcome=outcome)

    def _restore_twice(self, target: Path) -> RestoreResult:
        """The outcome; what was restored in part, because a tunnel broke perhaps, is tried once more."""
        first = self._restore_once(target)
        if first.state != "partial" or self._is_ended() or self._stop.wait(_SECOND_TRY_SECONDS):
            return first
        _LOG.warning("restore %s: %s; once more", self._order.request, first.summary)
        try:
            second = self._restore_once(target)
        except TurkuError as error:
            _LOG.warning("restore %s: %s", self._order.request, error.message)
            return first
        # Of what is there already it says nothing.
        files, size_bytes = max(first.files, second.files), max(first.size_bytes, second.size_bytes)
        return replace(second, files=files, size_bytes=size_bytes)

    def _is_ended(self) -> bool:
        return self._is_cancelled or self._stop.is_set()

    def _restore_once(self, target: Path) -> RestoreResult:
        from turku.agent.restore import run as restore_run
        from turku.agent.restore.job import RestoreJob
        from turku.policy import names
        from turku.protocol.restore_messages import path_bytes

        order = self._order
        return restore_run.restore(
            self._agent,
            RestoreJob(
                source=names.source_name(order.source),
                storage=order.storage,
                target=target,
                snapshot=order.snapshot,
                paths=tuple(names.path_inside(path_bytes(path)) for path in order.paths),
                overwrite=order.overwrite,
                of_machine=None if order.of_machine is None else names.machine_uuid(order.of_machine),
                request=order.request,
            ),
            on_progress=self._note,
            approve=self._approve,
            is_cancelled=self._is_ended,
        )

    def _approve(self, plan: PlannedRestore) -> bool:
        """Go on: it was approved at the coordinator. What the storage says of the snapshot is told with the outcome."""
        self._remarks = plan.remarks
        for remark in plan.remarks:
            _LOG.warning("restore %s: %s", self._order.request, remark)
        return True

    def _note(self, progress: RestoreProgress) -> None:
        self._progress = progress

    def _report_progress(self) -> None:
        """Tell how far it is, until it is over; this is also how a cancellation arrives here."""
        while True:
            try:
                answer = self._report("running")
            except ApiError as error:
                # It may come back, and the restore of files goes on meanwhile.
                _LOG.warning("restore %s: not reported: %s", self._order.request, error.message)
                if isinstance(error, (ApiForbidden, ApiNotFound)):
                    self._is_cancelled = True
                    return
            else:
                if not answer.go_on:
                    reason = one_line(answer.reason or "")
                    _LOG.warning("restore %s ends: %s", self._order.request, reason)
                    self._is_cancelled = True
                    return
            if self._over.wait(REPORT_SECONDS):
                return

    def _report_end(self, step: Step, message: str, *, outcome: RestoreResult | None = None) -> None:
        try:
            retry.call(
                lambda: self._report(step, message=message, outcome=outcome),
                on=ApiUnreachable,
                sleep=threading.Event().wait,
            )
        except ApiError as error:
            _LOG.error("restore %s: the coordinator does not know how it ended: %s", self._order.request, error.message)

    def _report(
        self, step: Step, *, message: str = "", outcome: RestoreResult | None = None
    ) -> AgentRestoreProgressAnswer:
        from turku.protocol.restore_request_messages import (
            PROGRESS_CALL,
            AgentRestoreProgressAnswer,
            AgentRestoreProgressRequest,
        )

        progress = self._progress
        done = outcome or progress
        told = AgentRestoreProgressRequest(
            machine=machine_identity.existing(self._agent).credentials,
            request=self._order.request,
            claim=self._claim,
            step=step,
            files=done.files if done else 0,
            size_bytes=done.size_bytes if done else 0,
            files_total=progress.files_total if progress else None,
            size_total_bytes=progress.size_total_bytes if progress else None,
            snapshot=outcome.snapshot if outcome else None,
            message=_sendable(message),
        )
        return self._api.call(PROGRESS_CALL, told, AgentRestoreProgressAnswer)


def _sendable(text: str) -> str:
    # Names in it are a storage's word: what cannot travel in JSON, or be stored, is shown in their place.
    plain = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
    return plain if len(plain) <= _MESSAGE_LIMIT else f"{plain[: _MESSAGE_LIMIT - 3]}..."
