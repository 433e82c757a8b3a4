"""Messages with recently changed entries and sparse files, which a machine names in a session if the storage asks.

Beyond the contract. An agent that can name them sends ``moment_ns`` in its ``SessionRequest``. A storage that wants
them answers with the line ``CHANGED_ENTRIES_WANTED`` on standard error. From then on the agent sends one
``ChangedEntriesLine`` and one ``FilesWithHolesLine`` for each source on ssh's standard input. A storage that does not
ask receives nothing, because it may take any further input for the end of the session.
"""

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
"""Path of the source's own directory."""


class ChangedEntriesLine(msgspec.Struct, frozen=True, tag="changed-entries"):
    """Entries of a source whose change time is ``since_ns`` or later, or that may have been moved into it.

    ``since_ns`` is shortly before the ``moment_ns`` of an earlier session, in Unix nanoseconds of the machine's clock.
    If ``is_complete``, the list has all of them. Otherwise it is empty.
    """

    source: Text
    since_ns: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    paths: Annotated[list[WirePath], Meta(max_length=PATHS_LIMIT)]
    is_complete: bool


class FilesWithHolesLine(msgspec.Struct, frozen=True, tag="files-with-holes"):
    """Sparse files of a source. If ``is_complete``, the list has all of them. Otherwise it is empty."""

    source: Text
    paths: Annotated[list[WirePath], Meta(max_length=PATHS_LIMIT)]
    is_complete: bool
