"""The session in which a machine browses its history or restores files. Answers go to standard output."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.units import count_of
from turku.errors import BackupFailed, MalformedMessage, RestoreFailed, TunnelRefused, TurkuError
from turku.protocol.jsonlines import JsonLines
from turku.protocol.restore_messages import BrowseRequest, FileRestoreRequest, HistoryRequest, Refusal
from turku.storage.config.model import StorageConfig
from turku.storage.restore import access_grants, plan, push
from turku.storage.restore.access_grants import AccessRequest
from turku.storage.restore.history_view import HistoryView
from turku.storage.restore.plan import PreparedRestore
from turku.storage.session import request as session_request
from turku.storage.session import tunnel_ownership
from turku.storage.session.cancellation import AgentDisconnected, SessionCancellation

GO_TIMEOUT_SECONDS = 600.0
"""The time in which a person may confirm the restore on the agent."""
_LOG = logging.getLogger(__name__)
T = TypeVar("T")


def serve(
    configuration: StorageConfig, uuid: str, request: HistoryRequest, *, descriptor: int, clock: Clock = SYSTEM_CLOCK
) -> None:
    """Answer the request of machine ``uuid``. A failure is an answer, too.

    Raises TunnelRefused, after which the agent tries another port, and OSError if nobody reads the answer.
    """
    served = _Served(configuration, uuid, request, JsonLines(sys.stdout.buffer), descriptor, clock)
    try:
        if request.action == "browse":
            # A browsing agent may end its input after the request. Its absence shows when it reads no answers.
            with served.watching(None) as (_agent, watched):
                watched.browse(_required(request.browse, "browse"))
        else:
            served.restore(_required(request.restore_files, "restore_files"))
    except TunnelRefused:
        raise
    except TurkuError as error:
        _LOG.warning("%s: %s", request.action, error.message)
        # The shared code for rsync raises BackupFailed, for instance when no rsync daemon answers.
        code = RestoreFailed.code if isinstance(error, BackupFailed) else error.code
        served.answers.send(Refusal(code, error.message, error.details, error.hint))
    except (AgentDisconnected, TimeoutError) as error:
        _LOG.warning("%s ended early: %s", request.action, error)


def _required(value: T | None, field: str) -> T:
    if value is None:
        raise MalformedMessage(f"Object missing required field `{field}` - at the top of the message")
    return value


@dataclass(frozen=True)
class _Served:
    configuration: StorageConfig
    uuid: str
    session: HistoryRequest
    answers: JsonLines
    descriptor: int
    clock: Clock

    @contextmanager
    def watching(self, descriptor: int | None) -> "Iterator[tuple[SessionCancellation, _Served]]":
        """Yield this session with a cancellation at the end of the input on ``descriptor`` or of the session's time."""
        with SessionCancellation(descriptor, longest_seconds=self.configuration.limits.max_run_seconds) as agent:
            yield agent, replace(self, answers=JsonLines(sys.stdout.buffer, agent))

    def browse(self, request: BrowseRequest) -> None:
        from turku.storage.restore import browse

        if request.listing != "snapshots" and len(request.sources) != 1:
            raise MalformedMessage("one source is browsed at a time - at `browse.sources`")
        for source in request.sources:
            wanted = AccessRequest(self.uuid, "browse", source, request.of_machine, request.request)
            browse.show(self._view(wanted), request, self.answers)

    def restore(self, request: FileRestoreRequest) -> None:
        wanted = AccessRequest(self.uuid, "restore", request.source, request.of_machine, request.request)
        if request.list_only:
            with self._planned(replace(wanted, action="browse"), request) as planned:
                plan.list_only(self.configuration, planned, self.answers)
            return
        port, module = _required(self.session.port, "port"), _required(self.session.module, "module")
        tunnel_ownership.require_own_tunnel(port)
        with self._planned(wanted, request) as planned:
            if not session_request.read_go(self.descriptor, timeout_seconds=GO_TIMEOUT_SECONDS, clock=self.clock):
                _LOG.info("%s: the agent did not confirm the restore", planned.snapshot.name)
                return
            count = count_of(len(planned.paths), "path") if planned.paths else "all of it"
            _LOG.info("%s: restore begins, %s", planned.snapshot.name, count)
            with self.watching(self.descriptor) as (agent, watched):
                push.push(
                    self.configuration, planned, watched.answers, port=port, credentials=module, cancellation=agent
                )

    def _view(self, wanted: AccessRequest) -> HistoryView:
        """Return the history that this session may see. Raises as ``access_grants.require`` does."""
        return HistoryView(self.configuration, access_grants.require(self.configuration, wanted), clock=self.clock)

    @contextmanager
    def _planned(self, wanted: AccessRequest, request: FileRestoreRequest) -> Iterator[PreparedRestore]:
        """Yield the prepared restore after its plan was sent to the agent."""
        with plan.prepared(self.configuration, self._view(wanted), request) as (restore, answer):
            self.answers.send(answer)
            yield restore
