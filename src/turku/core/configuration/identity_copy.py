"""The second copy of the identity file, without which a machine or storage has no access to its history.

The identity file is in ``var_dir/config.d`` and is read with the configuration. Its copy is in ``var_dir``. If a fault
of the disk emptied or overwrote the file, so that it lacks its keys, the copy replaces it. A file that was removed is
not replaced, because whoever removes it wants a new identity.
"""

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
    """Return True if the identity file exists and has none of its keys."""
    try:
        return not _content(identity, keys)
    except OSError:
        # A file that is missing is not damaged, and one that cannot be read now may be whole.
        return False


def read(identity: Path, keys: Collection[str]) -> dict[str, Any]:
    """Return the keys of the copy. Empty if the copy lacks one of them."""
    try:
        found = _content(path_of(identity), keys)
    except OSError:
        return {}
    return found if len(found) == len(keys) else {}


def has_content(identity: Path, content: dict[str, Any]) -> bool:
    """Return True if the copy has exactly this content."""
    return read(identity, content.keys()) == content


def to_text(content: dict[str, Any]) -> str:
    """Return the content as the text of both files."""
    return json.dumps(content, indent=4, sort_keys=True) + "\n"


def _content(path: Path, keys: Collection[str]) -> dict[str, Any]:
    try:
        found = json.loads(durable.read_regular_file(path, limit_bytes=_LIMIT_BYTES))
    except (ValueError, RecursionError):
        return {}
    usable = found if isinstance(found, dict) else {}
    return {key: usable[key] for key in keys if isinstance(usable.get(key), str) and usable[key].isprintable()}
