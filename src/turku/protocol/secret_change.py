"""The change of a secret in two phases, so that nothing is lost whenever it is interrupted.

The new secret is written to a file before the coordinator receives it, and stays there until it is in its place. The
coordinator accepts the old and the new secret for the same call, so that a later run can repeat the call and finish.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from turku.errors import ApiNotFound, ApiRejected, ConfigurationError

T = TypeVar("T")
Result = TypeVar("Result")

NOTHING_DONE = (ApiRejected, ApiNotFound)
"""Refusals after which the coordinator has for certain not applied the call. A proxy may send others in its place."""
_UNSUPPORTED_HINT = "the coordinator must be one of ours for this; secrets and keys are as they were"


def read_pending(path: Path, kind: type[T], *, hint: str) -> T | None:
    """Return the change that an earlier run began, or None. Raises ConfigurationError with the hint if damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", hint=hint) from error


def carry_out(
    begun: T | None, *, begin: Callable[[], T], finish: Callable[[T], Result], drop: Callable[[], None]
) -> Result:
    """Return the result of ``finish``, called with the change that was begun, or else with the one of ``begin``.

    ``begin`` writes the change to its file, ``finish`` sends it and puts it in its place, and ``drop`` removes the file
    where a first call was refused for certain. Raises what these raise.
    """
    new = begin() if begun is None else begun
    try:
        return finish(new)
    except NOTHING_DONE as error:
        if begun is None:
            drop()
            raise error.with_hint(_UNSUPPORTED_HINT) from error
        raise
