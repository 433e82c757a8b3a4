"""The rules that the coordinator sent with the last successful run of a source, kept beside its snapshots.

Between runs nobody else on a storage knows them. ``turku-storage retention`` reads those of retention here. All options
are kept for a coordinator that lost its database.
"""

import json
from typing import Any

import msgspec

from turku.protocol.messages import SourceOrder
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import tree as fs

_LIMIT_BYTES = 4 * 1024 * 1024
_OPTIONS = "options"
_NO_OPTIONS = ("storage", "retention_floor", "allowed_snapshot_modes", "quota_bytes", "period_seconds")
"""Fields of an order that no machine declares."""


class SourceRules(msgspec.Struct, frozen=True):
    """The part of a source's order that retention needs."""

    retention: str
    retention_floor: str | None = None
    period_seconds: float | None = None


def record(place: SourceDirectory, order: SourceOrder) -> None:
    """Keep the rules of the order. A source without history has none. Raises DurableWriteFailed and OSError."""
    rules = SourceRules(order.retention, order.retention_floor, order.period_seconds)
    options = _options(order)
    if fs.is_directory(place.snapshots_dir) and (read(place) != rules or last_options(place) != options):
        fs.write_json(place.retention_rules, {**msgspec.to_builtins(rules), _OPTIONS: options})


def read(place: SourceDirectory) -> SourceRules | None:
    """Return the rules, or None where no run has recorded them in a form that can be read."""
    try:
        content = json.loads(fs.read_file(place.retention_rules, limit_bytes=_LIMIT_BYTES))
        return msgspec.convert(content, SourceRules)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None


def last_options(place: SourceDirectory) -> dict[str, Any]:
    """Return the options of the last order as a machine declares them. Empty if they are not known."""
    try:
        content = json.loads(fs.read_file(place.retention_rules, limit_bytes=_LIMIT_BYTES))
        return msgspec.convert(content[_OPTIONS], dict[str, Any])
    except (OSError, ValueError, KeyError, TypeError, msgspec.MsgspecError):
        return {}


def _options(order: SourceOrder) -> dict[str, Any]:
    content: dict[str, Any] = {
        name: each for name, each in msgspec.to_builtins(order).items() if name not in _NO_OPTIONS
    }
    windows = content.pop("bandwidth_windows", None)
    if windows is not None:
        # The number of the order is the limit of that hour.
        content["bwlimit"] = windows
    # Options at their defaults are not sent by a machine either.
    return {name: value for name, value in content.items() if value not in (None, [], False)}
