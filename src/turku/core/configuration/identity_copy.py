"""A second copy of the file that says who a program is: without it a machine or storage is a stranger to its history.

The file lies in ``var_dir/config.d`` and is read with the configuration; the copy lies in ``var_dir``. A file that is
there without its keys, emptied or overwritten by a fault of the disk, is healed from the copy. One that was removed is
not: who removes it wants a new identity.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from turku.core import durable

_LIMIT_BYTES = 64 * 1024


def path_of(identity: Path) -> Path:
    """Return where the copy of the identity file lies."""
    return identity.parent.parent / f"{identity.name}.copy"


def is_damaged(identity: Path, keys: Collection[str]) -> bool:
    """Return True where the identity file is there and has none of its keys."""
    try:
        return not _content(identity, keys)
    except FileNotFoundError:
        return False
    except OSError:
        # What cannot be read now says nothing.
        return False


def read(identity: Path, keys: Collection[str]) -> dict[str, Any]:
    """Return what the copy has of the keys, all of them; nothing where it is of no use."""
    try:
        found = _content(path_of(identity), keys)
    except OSError:
        return {}
    return found if len(found) == len(keys) else {}


def is_as(identity: Path, content: dict[str, Any]) -> bool:
    """Return True where the copy has just that content."""
    return read(identity, content.keys()) == content


def text(content: dict[str, Any]) -> str:
    """Return the content as both files have it."""
    return json.dumps(content, indent=4, sort_keys=True) + "\n"


def _content(path: Path, keys: Collection[str]) -> dict[str, Any]:
    try:
        found = json.loads(durable.read_regular_file(path, limit_bytes=_LIMIT_BYTES))
    except (ValueError, RecursionError):
        return {}
    usable = found if isinstance(found, dict) else {}
    return {key: usable[key] for key in keys if isinstance(usable.get(key), str) and usable[key].isprintable()}
