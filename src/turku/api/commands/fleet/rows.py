"""Machines and storages as rows of tables and as JSON."""

import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.utils import timezone

from turku.api.fleet import former_history
from turku.api.fleet.models import FormerHistory, Machine
from turku.api.status import reasons
from turku.api.status.marks import Mark
from turku.core.cli.listing import Say
from turku.core.log import one_line
from turku.core.units import rough_duration, size

NOTHING = "-"
VERSION_COLUMNS = ("turku", "rsync", "ssh", "os", "python")
_MIB = 1024**2
_NARROWEST = 20


def ago(moment: datetime | None, *, now: datetime) -> str:
    """Return a past moment as ``3 h ago``."""
    return NOTHING if moment is None else f"{rough_duration(now - moment)} ago"


def day(moment: datetime | None) -> str:
    """Return the moment as the coordinator's clocks show it."""
    return NOTHING if moment is None else f"{timezone.localtime(moment):%Y-%m-%d %H:%M}"


def iso(moment: datetime | None) -> str | None:
    """Return the moment as JSON has it."""
    return None if moment is None else moment.isoformat()


def versions(row: Any) -> tuple[str, ...]:
    """Return the versions that a machine or storage reports, in the order of VERSION_COLUMNS."""
    return tuple(str(row.versions.get(name, NOTHING)) for name in VERSION_COLUMNS)


def machine_reasons(rows: Sequence[Any], *, now: datetime) -> list[str]:
    """Return the reason for the mark of each machine, or an empty text where it needs none."""
    marked = [row.pk for row in rows if Mark(row.mark) not in (Mark.OK, Mark.OFF)]
    worst = reasons.worst_sources(marked, now=now) if marked else {}
    return [reasons.machine_reason(row, worst.get(row.pk), now=now) for row in rows]


def machine_object(row: Any, reason: str) -> dict[str, Any]:
    """Return a machine for a program."""
    return {
        "uuid": str(row.uuid),
        "name": str(row),
        "environment_name": row.environment_name,
        "service_name": row.service_name,
        "unit_name": row.unit_name,
        "comment": row.comment,
        "health": row.mark,
        "reason": reason,
        "storage": None if row.storage is None else row.storage.name,
        "active": row.active,
        "published": row.published,
        "last_seen": iso(row.date_checked_in),
        "registered": iso(row.date_registered),
        "muted_until": iso(row.date_muted_until),
        "versions": row.versions,
    }


def storage_object(row: Any, reason: str, counts: Mapping[str, int]) -> dict[str, Any]:
    """Return a storage for a program."""
    return {
        "name": row.name,
        "health": row.mark,
        "reason": reason,
        "comment": row.comment,
        "active": row.active,
        "published": row.published,
        "draining": row.is_draining,
        **counts,
        "space_available_bytes": int(row.space_available * _MIB),
        "space_total_bytes": int(row.space_total * _MIB),
        "address": f"{row.ssh_ping_host}:{row.ssh_ping_port}",
        "last_seen": iso(row.date_checked_in),
        "registered": iso(row.date_registered),
        "versions": row.versions,
    }


def removed_object(row: Machine) -> dict[str, Any]:
    """Return a removed machine for a program."""
    return {"uuid": str(row.uuid), "name": str(row), "removed": iso(row.date_removed), "removed_by": row.removed_by}


def history_object(row: FormerHistory) -> dict[str, Any]:
    """Return a former history for a program."""
    return {
        "machine": str(row.machine_uuid),
        "name": row.machine_name,
        "storage": row.storage.name,
        "moved": row.is_moved,
        "since": iso(row.date_since),
        "keep_until": iso(row.date_keep_until),
    }


def history_sentence(row: FormerHistory, *, now: datetime) -> str:
    """Return what becomes of a history that a former storage keeps."""
    what = f"of {row.machine_name} " if row.machine_name else ""
    return f"history {what}on {row.storage}: {former_history.fate(row.date_keep_until, now=now)}"


def space(mebibytes: float) -> str:
    """Return an amount of disk space for people."""
    return size(mebibytes * _MIB)


def show_fields(fields: Iterable[tuple[str, str]], say: Say) -> None:
    """Print the names and values of one object, long ones in several lines of a terminal. Empty ones are left out."""
    shown = [(name, value) for name, value in fields if value not in ("", NOTHING)]
    width = max(len(name) for name, _value in shown) + len(": ")
    room = max(shutil.get_terminal_size().columns - width, _NARROWEST) if sys.stdout.isatty() else sys.maxsize
    for name, value in shown:
        label = f"{name}:"
        for line in value.split("\n"):
            for part in textwrap.wrap(one_line(line), room, break_long_words=False, break_on_hyphens=False):
                say(f"{label:<{width}}{part}")
                label = ""
