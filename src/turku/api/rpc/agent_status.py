"""The call ``agent_status``: the state of a machine, for its ``turku-agent check``, ``status`` and ``ping``."""

from django.db.models import OuterRef, Subquery

from turku.api.backups.models import BackupRun, Source
from turku.api.backups.next_backup import next_due
from turku.api.fleet.identity import authentication
from turku.api.restores import offers
from turku.api.rpc.endpoint import endpoint
from turku.core.clock import SYSTEM_CLOCK
from turku.protocol.machine.agent_status_messages import AgentStatusAnswer, SourceStatus
from turku.protocol.messages import AgentPingRequest


@endpoint(AgentPingRequest)
def agent_status(request: AgentPingRequest) -> AgentStatusAnswer:
    """Return the machine's storage and sources. Nothing begins by it."""
    now = SYSTEM_CLOCK.now()
    machine = authentication.require_machine(request.machine.uuid, request.machine.secret, now=now)
    last_run = BackupRun.objects.filter(source=OuterRef("pk")).order_by("-date").values("date")[:1]
    rows = machine.sources.annotate(date_last_run=Subquery(last_run)).order_by("name")

    def status(source: Source) -> SourceStatus:
        is_failing = source.success is False
        is_backed_up = source.published and source.active
        return SourceStatus(
            succeeded=source.date_last_backed_up,
            failed=source.date_last_run if is_failing else None,  # type: ignore[attr-defined]  # annotated above
            failure_reason=source.failure_reason if is_failing else "",
            next=next_due(source, now=now) if is_backed_up else None,
            is_declared=source.published,
            is_active=source.active,
        )

    storage = machine.storage
    return AgentStatusAnswer(
        now,
        is_published=machine.published,
        storage=None if storage is None or not storage.active else offers.storage_address(storage),
        sources={source.name: status(source) for source in rows},
        refused=machine.refused_sources,
    )
