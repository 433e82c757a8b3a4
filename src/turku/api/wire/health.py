"""The call ``health``."""

from __future__ import annotations

from turku.api.backups.models import BackupRun, Source
from turku.api.fleet.models import Auth, FilterSet, Machine, Storage
from turku.api.wire.endpoint import endpoint
from turku.core.clock import SYSTEM_CLOCK
from turku.protocol.messages import Empty, HealthAnswer


@endpoint(Empty)
def health(_request: Empty) -> HealthAnswer:
    """That the coordinator and its database work, and how many objects it knows."""
    return HealthAnswer(
        healthy=True,
        date=SYSTEM_CLOCK.now().isoformat(),
        counts={
            "auth": Auth.objects.count(),
            "storage": Storage.objects.count(),
            "machine": Machine.objects.count(),
            "source": Source.objects.count(),
            "filter_set": FilterSet.objects.count(),
            "backup_log": BackupRun.objects.count(),
        },
    )
