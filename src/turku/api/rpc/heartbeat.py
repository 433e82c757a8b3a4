"""The call ``storage_heartbeat``: a session continues or has ended."""

from __future__ import annotations

from turku.api.fleet.identity import authentication
from turku.api.queue import leases
from turku.api.rpc.endpoint import endpoint
from turku.core.clock import SYSTEM_CLOCK
from turku.protocol.heartbeat_messages import StorageHeartbeatAnswer, StorageHeartbeatRequest


@endpoint(StorageHeartbeatRequest)
def storage_heartbeat(request: StorageHeartbeatRequest) -> StorageHeartbeatAnswer:
    """Extend or end the leases of the session."""
    now = SYSTEM_CLOCK.now()
    storage = authentication.require_storage(request.storage.name, request.storage.secret, now=now)
    machine = authentication.require_assigned_machine(storage, request.machine.uuid)
    if request.ended:
        leases.end(machine, storage, now=now)
        return StorageHeartbeatAnswer(leased=False)
    leased = leases.heartbeat(machine, storage, now=now)
    if leased:
        # The machine does not check in during its session.
        authentication.write_check_in(machine, now=now)
    return StorageHeartbeatAnswer(leased=leased)
