"""How long the record of backup runs is kept."""

from __future__ import annotations

from datetime import datetime, timedelta

from turku.api.backups.models import BackupRun

_BATCH = 5000


def delete_runs(*, older_than_days: int, now: datetime) -> int:
    """The number of runs deleted; in batches, so that check-ins never wait long for the database."""
    old = BackupRun.objects.filter(date__lt=now - timedelta(days=older_than_days)).order_by("date")
    deleted = 0
    while keys := list(old.values_list("pk", flat=True)[:_BATCH]):
        deleted += BackupRun.objects.filter(pk__in=keys).delete()[0]
    return deleted
