"""The target directory of a restore, as an operator may name it."""

from __future__ import annotations

from turku.errors import InvalidValue
from turku.policy.characters import code_point, is_misleading, shown, size_bytes

DIRECTORY_LIMIT_BYTES = 4000


def target_directory(text: str) -> str:
    """Return the absolute directory, without needless slashes.

    Raises InvalidValue, also for a directory with ``..`` in it, because its meaning depends on links.
    """
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
