"""The call ``storage_integrity_report``: damage, verification and drills."""

from __future__ import annotations

from turku.api.fleet.identity import authentication
from turku.api.integrity import report
from turku.api.rpc.endpoint import endpoint
from turku.core.clock import SYSTEM_CLOCK
from turku.protocol.integrity_messages import StorageIntegrityReportRequest
from turku.protocol.messages import Empty


@endpoint(StorageIntegrityReportRequest)
def storage_integrity_report(request: StorageIntegrityReportRequest) -> Empty:
    """Record damage, verification and drills of a machine of this storage."""
    now = SYSTEM_CLOCK.now()
    storage = authentication.require_storage(request.storage.name, request.storage.secret, now=now)
    machine = authentication.require_assigned_machine(storage, request.machine.uuid)
    report.record(machine, storage, request.machine.sources, now=now)
    return Empty()
