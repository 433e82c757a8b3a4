"""The retention rules that the coordinator sent with the last successful run of a source, kept beside its snapshots.

Between runs nobody else on a storage knows them. ``turku-storage retention`` reads them here.
"""

import json

import msgspec

from turku.protocol.messages import SourceOrder
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs import tree as fs

_LIMIT_BYTES = 16 * 1024


class SourceRules(msgspec.Struct, frozen=True):
    """The part of a source's order that retention needs."""

    retention: str
    retention_floor: str | None = None
    period_seconds: float | None = None


def record(place: SourceDirectory, order: SourceOrder) -> None:
    """Keep the rules of the order. A source without history has none. Raises DurableWriteFailed and OSError."""
    rules = SourceRules(order.retention, order.retention_floor, order.period_seconds)
    if fs.is_directory(place.snapshots_dir) and read(place) != rules:
        fs.write_json(place.retention_rules, msgspec.to_builtins(rules))


def read(place: SourceDirectory) -> SourceRules | None:
    """Return the rules, or None where no run has recorded them in a form that can be read."""
    try:
        content = json.loads(fs.read_file(place.retention_rules, limit_bytes=_LIMIT_BYTES))
        return msgspec.convert(content, SourceRules)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None
