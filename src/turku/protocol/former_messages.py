"""Messages about history that a storage keeps of a machine that it does not back up any more. They are ours."""

from typing import Annotated

import msgspec
from msgspec import Meta

ENDED_LIMIT = 1000
"""Most ended histories that one message names."""


class KeptHistory(msgspec.Struct, frozen=True, omit_defaults=True):
    """The wish of the operator for such a history. The storage decides what it removes, and when."""

    name: Annotated[str, Meta(max_length=4096)] = ""
    """The name of the machine, for people."""
    moved: bool = False
    """The machine is backed up by another storage, and may restore from this one. Otherwise it was removed."""
    keep_until: Annotated[str, Meta(max_length=100)] | None = None
    """A moment in ISO form, after which the history may go to the trash, or None to keep it without end."""
