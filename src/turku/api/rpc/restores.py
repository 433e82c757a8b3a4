"""The calls of restores on behalf of others.

These are ``storage_access_request``, ``agent_restores`` and ``agent_restore_progress``.
"""

from __future__ import annotations

from msgspec import Raw

from turku.api.fleet.identity import authentication
from turku.api.restores import access_grants, offers, progress_report
from turku.api.rpc.endpoint import endpoint
from turku.core.clock import SYSTEM_CLOCK
from turku.protocol.codec import encode
from turku.protocol.messages import AgentPingRequest
from turku.protocol.restore_messages import StorageAccessAnswer, StorageAccessRequest
from turku.protocol.restore_request_messages import (
    AgentRestoreProgressAnswer,
    AgentRestoreProgressRequest,
    AgentRestoresAnswer,
)


@endpoint(StorageAccessRequest)
def storage_access_request(request: StorageAccessRequest) -> StorageAccessAnswer:
    """Decide whether the storage may show this history to a machine or send it there."""
    now = SYSTEM_CLOCK.now()
    storage = authentication.require_storage(request.storage.name, request.storage.secret, now=now)
    return access_grants.decide(storage, request, now=now)


@endpoint(AgentPingRequest)
def agent_restores(request: AgentPingRequest) -> AgentRestoresAnswer:
    """Return the restores that wait for a machine that has no time for a check-in."""
    now = SYSTEM_CLOCK.now()
    machine = authentication.require_machine(request.machine.uuid, request.machine.secret, now=now)
    return AgentRestoresAnswer(Raw(encode(offers.offered_restores(machine.pk, now=now))))


@endpoint(AgentRestoreProgressRequest)
def agent_restore_progress(request: AgentRestoreProgressRequest) -> AgentRestoreProgressAnswer:
    """Record the progress of a restore, and tell the machine whether to go on."""
    now = SYSTEM_CLOCK.now()
    machine = authentication.require_machine(request.machine.uuid, request.machine.secret, now=now)
    return progress_report.record(machine, request, now=now)
