"""Machines and storages whose programs are older than the coordinator's settings ask for."""

from typing import Any

from django.conf import settings
from django.db.models import Q

from turku.api.fleet.versions import order


def machines() -> Q:
    """Return a condition for machines with an older Turku. One that reports no version is not among them."""
    return _older("program_order", settings.TURKU_ENVIRONMENT.minimum_version)


def storages() -> Q:
    """Return a condition for storages with an older Turku or an older rsync."""
    rsync = settings.TURKU_ENVIRONMENT.minimum_storage_rsync
    return _older("program_order", settings.TURKU_ENVIRONMENT.minimum_version) | _older("rsync_order", rsync)


def _older(column: str, minimum: str) -> Q:
    return Q(**{f"{column}__lt": order(minimum)}) if minimum else Q(pk__in=())


def reason(row: Any) -> str:
    """Return what is older on this machine or storage, and than what."""
    environment = settings.TURKU_ENVIRONMENT
    found = [
        f"{name} {row.versions.get(name, 'of an unknown version')} is older than {minimum} ({variable})"
        for name, column, minimum, variable in (
            ("turku", "program_order", environment.minimum_version, "TURKU_MINIMUM_VERSION"),
            ("rsync", "rsync_order", environment.minimum_storage_rsync, "TURKU_MINIMUM_STORAGE_RSYNC"),
        )
        if minimum and getattr(row, column, None) is not None and getattr(row, column) < (order(minimum) or 0)
    ]
    return "; ".join(found)
