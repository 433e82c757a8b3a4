"""Entries that changed lately, and files with holes: a storage asks for them in a session, and the machine names them.

Beyond the contract. An agent that can tell sends ``moment_ns`` in its ``SessionRequest``. A storage that wants to know
answers with the line ``CHANGED_ENTRIES_WANTED`` on standard error. From then on the agent sends one
``ChangedEntriesLine`` and one ``FilesWithHolesLine`` per source on ssh's standard input. A storage that does not ask is
sent nothing, as it may take any further input for the end of the session.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from turku.protocol.messages import Text
from turku.protocol.restore_messages import WirePath

CHANGED_ENTRIES_WANTED: Final = "turku-storage asks which entries changed lately"
LINES_LIMIT_BYTES: Final = 1_000_000
"""All lines of one session together."""
PATHS_LIMIT: Final = 20_000
"""All lines of one session together."""
OWN_DIRECTORY: Final = b"."
"""The path of the source's own directory."""


class ChangedEntriesLine(msgspec.Struct, frozen=True, tag="changed-entries"):
    """The entries of a source whose change time is ``since_ns`` or later, and those that may have come from elsewhere.

    ``since_ns`` is shortly before the ``moment_ns`` of an earlier session, in Unix nanoseconds of the machine's clock.
    The paths are all of them where ``is_complete``, and none otherwise.
    """

    source: Text
    since_ns: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    paths: Annotated[list[WirePath], Meta(max_length=PATHS_LIMIT)]
    is_complete: bool


class FilesWithHolesLine(msgspec.Struct, frozen=True, tag="files-with-holes"):
    """The files of a source that take less room than their sizes say: all of them where ``is_complete``, else none."""

    source: Text
    paths: Annotated[list[WirePath], Meta(max_length=PATHS_LIMIT)]
    is_complete: bool
