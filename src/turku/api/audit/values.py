"""Values as the audit log stores them: as JSON, bounded, without secrets."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

_SECRET_NAME = re.compile(r"secret|passw|token|private|credential|api_?key|_hash|(^|_)code$", re.IGNORECASE)
_TEXT_LIMIT = 2000
_LIST_LIMIT = 100
_DEPTH_LIMIT = 8
_SIZE_LIMIT_BYTES = 64 * 1024
HIDDEN = "***"


def _shown(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else str(value)
    if isinstance(value, Mapping):
        return _fields(value, depth - 1) if depth else "..."
    if isinstance(value, (list, tuple, set, frozenset)):
        items = list(value)
        more = [f"... and {len(items) - _LIST_LIMIT} more"] if len(items) > _LIST_LIMIT else []
        return [*(_shown(item, depth - 1) for item in items[:_LIST_LIMIT]), *more] if depth else "..."
    text = str(value)
    return text if len(text) <= _TEXT_LIMIT else f"{text[:_TEXT_LIMIT]}... ({len(text)} characters)"


def _fields(values: Mapping[str, Any], depth: int) -> dict[str, Any]:
    return {
        str(name)[:_TEXT_LIMIT]: HIDDEN if _SECRET_NAME.search(str(name)) else _shown(value, depth)
        for name, value in values.items()
    }


def loggable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as JSON holds them, with long ones shortened and those of secret fields hidden."""
    shown = _fields(values, _DEPTH_LIMIT)
    if len(msgspec.json.encode(shown)) > _SIZE_LIMIT_BYTES:
        return {name[:_TEXT_LIMIT]: "(too large to be kept here)" for name in list(shown)[:_LIST_LIMIT]}
    return shown
