"""The call ``health``."""

from __future__ import annotations

from turku.api.backups.models import BackupRun, Source
from turku.api.database import row_count
from turku.api.fleet.models import Auth, FilterSet, Machine, Storage
from turku.api.rpc.endpoint import endpoint
from turku.core.clock import SYSTEM_CLOCK
from turku.protocol.messages import Empty, HealthAnswer


@endpoint(Empty)
def health(_request: Empty) -> HealthAnswer:
    """Return that the coordinator and its database work, with the number of objects of each kind."""
    return HealthAnswer(
        healthy=True,
        date=SYSTEM_CLOCK.now().isoformat(),
        counts={
            "auth": row_count.bounded_count(Auth),
            "storage": row_count.bounded_count(Storage),
            "machine": row_count.bounded_count(Machine),
            "source": row_count.bounded_count(Source),
            "filter_set": row_count.bounded_count(FilterSet),
            "backup_log": row_count.bounded_count(BackupRun),
        },
    )
