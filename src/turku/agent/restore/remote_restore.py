"""Remote restores: restore requests of the coordinator, picked up at a checkin and limited by ``remote_restore``.

A coordinator may be hostile (threats C3). Therefore this machine's own configuration decides if restore requests are
run at all, and below which directories they may write. The run reports its progress. When the reports of a killed run
stay away, a later ping picks the request up again.
"""

import logging
import os
import secrets
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec

from turku.agent.config.model import AgentConfig, RestoreConfig
from turku.agent.identity import machine_identity
from turku.agent.restore import run as restore_run
from turku.agent.restore.job import PlannedRestore, RestoreJob
from turku.agent.restore.result import RestoreProgress, RestoreResult
from turku.agent.state import var_dir
from turku.core import lock, retry
from turku.core.filesystem import paths
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
from turku.policy import names
from turku.protocol import codec
from turku.protocol.messages import AgentPingRequest
from turku.protocol.restore_messages import path_bytes
from turku.protocol.restore_request_messages import (
    PROGRESS_CALL,
    WAITING_CALL,
    AgentRestoreProgressAnswer,
    AgentRestoreProgressRequest,
    AgentRestoresAnswer,
    RestoreOrder,
    Step,
)

LOCK_NAME = "turku-agent-remote-restore"
REPORT_SECONDS = 5.0
"""The time between two reports, which is well within the lease that the coordinator gives."""
_MESSAGE_LIMIT = 4000
_SECOND_TRY_SECONDS = 5.0
_REQUESTS_PER_PING = 50
"""The most requests that one ping runs. A hostile coordinator may invent any number. The others wait."""
_LOG = logging.getLogger(__name__)


class NotAllowedHere(InvalidValue):
    """The machine's configuration does not allow the restore."""


def waiting_orders(agent: AgentConfig) -> msgspec.Raw:
    """Return the restore requests for this machine, without a checkin. Raises as ``checkin.check_in`` does."""
    request = AgentPingRequest(machine=machine_identity.existing(agent).credentials)
    api = agent.api.client(agent.state.var_dir).beyond_contract()
    return api.call(WAITING_CALL, request, AgentRestoresAnswer).restores


def decode_orders(answer: msgspec.Raw) -> list[RestoreOrder]:
    """Return the restore requests of an answer. Malformed ones are logged, and none are returned."""
    try:
        return codec.decode(bytes(answer), list[RestoreOrder])
    except MalformedMessage as error:
        _LOG.error("the coordinator sent malformed restore requests: %s", error.message)
        return []


def run(agent: AgentConfig, waiting: Sequence[RestoreOrder], stop: threading.Event) -> None:
    """Run the restore requests one after the other, until ``stop``. Another run that is active keeps its requests."""
    try:
        with lock.exclusive(var_dir.lock_directory(agent.state), LOCK_NAME):
            for order in waiting[:_REQUESTS_PER_PING]:
                if not stop.is_set():
                    _run_one(agent, order, stop)
    except LockHeld:
        _LOG.info("another restore request is still running")
    except TurkuError as error:
        _LOG.error("cannot run the restore requests of the coordinator: %s", error.message)


def _run_one(agent: AgentConfig, order: RestoreOrder, stop: threading.Event) -> None:
    # A failed request must not prevent the next one.
    try:
        _RemoteRestore(agent, order, stop).run()
    except TurkuError as error:
        _LOG.error("restore %s: %s", order.request, error.message)
    except Exception:
        _LOG.exception("restore %s: internal error", order.request)


def allowed_target(configured: RestoreConfig, directory: str) -> Path:
    """Return the directory with links resolved. Raises NotAllowedHere where the configuration forbids it."""
    if not configured.remote_restore:
        raise NotAllowedHere(
            "remote_restore is not set on this machine", hint="it names the directories below which a restore may write"
        )
    try:
        wanted = names.target_directory(directory)
    except InvalidValue as error:
        raise NotAllowedHere(f"the directory {error.message}") from None
    # Existing links are resolved. Missing directories are created and cannot be links.
    resolved = _resolved(wanted)
    allowed = [_resolved(str(place)) for place in configured.remote_restore]
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
    """One restore request, from its pick-up to its result."""

    def __init__(self, agent: AgentConfig, order: RestoreOrder, stop: threading.Event) -> None:
        self._agent = agent
        self._order = order
        self._claim = secrets.token_hex(16)
        self._api = agent.api.client(agent.state.var_dir).beyond_contract()
        self._stop = stop
        self._over = threading.Event()
        self._is_cancelled = False
        self._progress: RestoreProgress | None = None
        self._remarks: tuple[str, ...] = ()

    def run(self) -> None:
        """Pick the request up and run it. Errors are reported to the coordinator and logged."""
        try:
            answer = self._report("picked_up")
        except ApiError as error:
            _LOG.error("restore %s: not picked up: %s", self._order.request, error.message)
            return
        if not answer.go_on:
            _LOG.info("restore %s: %s", self._order.request, one_line(answer.reason or "not to be picked up"))
            return
        try:
            target = allowed_target(self._agent.restore, self._order.directory)
        except NotAllowedHere as error:
            _LOG.warning("restore %s is refused: %s", self._order.request, error.message)
            self._report_end("refused", error.sentence)
            return
        self._restore(target)

    def _restore(self, target: Path) -> None:
        reporter = threading.Thread(target=self._report_progress, name="restore progress", daemon=True)
        reporter.start()
        try:
            try:
                result = self._restore_twice(target)
            finally:
                self._over.set()
                reporter.join()
        except TurkuError as error:
            _LOG.error("restore %s: %s", self._order.request, error.message)
            message = "\n".join(part for part in (error.message, error.hint, error.details) if part)
            self._report_end("postponed" if error.retryable else "failed", message)
        except BaseException:
            # An internal error. A later ping picks the request up again.
            with suppress(TurkuError):
                self._report("postponed", message="an internal error on the machine; its log has it")
            raise
        else:
            _LOG.info("restore %s: %s", self._order.request, result.summary)
            is_ended_here = result.state == "cancelled" and not self._is_cancelled
            if result.state == "cancelled" and self._is_cancelled:
                restore_run.discard(self._agent.state, target)
            step: Step = "postponed" if is_ended_here else result.state
            notes = (f"note: {each}" for each in self._remarks)
            message = "\n".join((result.summary, *notes, *result.warnings, *result.problems))
            self._report_end(step, message, result=result)

    def _restore_twice(self, target: Path) -> RestoreResult:
        """Return the result. A partial restore, for example after a broken tunnel, is tried once more."""
        first = self._restore_once(target)
        if first.state != "partial" or self._is_ended() or self._stop.wait(_SECOND_TRY_SECONDS):
            return first
        _LOG.warning("restore %s: %s; once more", self._order.request, first.summary)
        try:
            second = self._restore_once(target)
        except TurkuError as error:
            _LOG.warning("restore %s: %s", self._order.request, error.message)
            return first
        # The second run does not count the files that were restored by the first one.
        files, size_bytes = max(first.files, second.files), max(first.size_bytes, second.size_bytes)
        return replace(second, files=files, size_bytes=size_bytes)

    def _is_ended(self) -> bool:
        return self._is_cancelled or self._stop.is_set()

    def _restore_once(self, target: Path) -> RestoreResult:
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
        """Approve the plan, as the coordinator has approved the request. The result reports the storage's remarks."""
        self._remarks = plan.remarks
        for remark in plan.remarks:
            _LOG.warning("restore %s: %s", self._order.request, remark)
        return True

    def _note(self, progress: RestoreProgress) -> None:
        self._progress = progress

    def _report_progress(self) -> None:
        """Report the progress until the restore is over. The answer may also cancel it."""
        while True:
            try:
                answer = self._report("running")
            except ApiError as error:
                # The coordinator may return, and the restore goes on meanwhile.
                _LOG.warning("restore %s: cannot report its progress: %s", self._order.request, error.message)
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

    def _report_end(self, step: Step, message: str, *, result: RestoreResult | None = None) -> None:
        try:
            retry.call(
                lambda: self._report(step, message=message, result=result),
                on=ApiUnreachable,
                sleep=threading.Event().wait,
            )
        except ApiError as error:
            _LOG.error("restore %s: cannot report its result: %s", self._order.request, error.message)

    def _report(
        self, step: Step, *, message: str = "", result: RestoreResult | None = None
    ) -> AgentRestoreProgressAnswer:
        progress = self._progress
        done = result or progress
        request = AgentRestoreProgressRequest(
            machine=machine_identity.existing(self._agent).credentials,
            request=self._order.request,
            claim=self._claim,
            step=step,
            files=done.files if done else 0,
            size_bytes=done.size_bytes if done else 0,
            files_total=progress.files_total if progress else None,
            size_total_bytes=progress.size_total_bytes if progress else None,
            snapshot=result.snapshot if result else None,
            message=_sendable(message),
        )
        return self._api.call(PROGRESS_CALL, request, AgentRestoreProgressAnswer)


def _sendable(text: str) -> str:
    # A storage chose the names in it. Characters that JSON or the database cannot hold are escaped.
    plain = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
    return plain if len(plain) <= _MESSAGE_LIMIT else f"{plain[: _MESSAGE_LIMIT - 3]}..."
