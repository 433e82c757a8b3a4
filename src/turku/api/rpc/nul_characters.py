"""The check for NUL characters, which JSON can carry and PostgreSQL cannot store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from turku.errors import MalformedMessage
from turku.protocol import codec

_NUL_ESCAPE = b"\\u0000"


def _places(message: dict[str, Any]) -> Iterator[str]:
    # It is not recursive, because a message may be nested deeper than the stack.
    waiting: list[tuple[str, Any]] = list(message.items())
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str) and "\0" in value:
            yield path
        elif isinstance(value, list):
            waiting += [(f"{path}[{index}]", item) for index, item in enumerate(value)]
        elif isinstance(value, dict):
            yield from (f"{path}: a key in it" for key in value if "\0" in key)
            waiting += [(f"{path}.{key}", item) for key, item in value.items()]


def refuse_nul_characters(body: bytes) -> None:
    """Raise MalformedMessage with the name of a field that holds a NUL character.

    ``body`` is a JSON object.
    """
    if _NUL_ESCAPE not in body:
        return
    place = next(_places(codec.decode(body, dict)), None)
    if place is not None:
        raise MalformedMessage(f"NUL characters are not allowed - at `{place[:200].replace(chr(0), '')}`")
