"""Where on a machine a restore may go: what is lawful as a directory's name, and what lies inside of what."""

from __future__ import annotations

from collections.abc import Iterable

from turku.errors import InvalidValue
from turku.policy.characters import code_point, is_misleading, shown, size_bytes

DIRECTORY_LIMIT_BYTES = 4000


def target_directory(text: str) -> str:
    """The absolute directory, without needless slashes. Raises InvalidValue, for one with ``..`` in it too: where that
    leads depends on links."""
    if size_bytes(text) > DIRECTORY_LIMIT_BYTES:
        raise InvalidValue(f"is longer than {DIRECTORY_LIMIT_BYTES} bytes")
    bad = next((character for character in text if is_misleading(character)), None)
    if bad is not None:
        raise InvalidValue(f"{shown(text)} has the character {code_point(bad)}, which a directory here must not have")
    if not text.startswith("/"):
        raise InvalidValue(f"{shown(text)} is not an absolute directory", hint="such as /var/restored/etc")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidValue(f"{shown(text)} has '..' in it", hint="name the directory that is meant")
    return f"/{'/'.join(parts)}"


def lies_inside(path: str, directories: Iterable[str]) -> bool:
    """Whether the path is one of the directories or below one; all of them absolute, without links or ``..``."""
    return any(path == directory or path.startswith(f"{directory.rstrip('/')}/") for directory in directories)
