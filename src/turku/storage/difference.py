"""What a dry run found between a source and its newest snapshot, and the list by which that alone is brought over."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import IO

from turku.storage.changes import Changes, Kind
from turku.storage.transfer import Transferred

ENTRIES_LIMIT = 200_000
"""Beyond it, and beyond a share of all, a run over the whole source is no slower."""
SHARE_LIMIT = 0.5
_FILES = re.compile(r"Number of files: (\d+)")
_HERE = b"./"
"""With it rsync sends what the source's own directory is like, and takes no name for an option or a comment."""


@dataclass(frozen=True)
class Difference:
    """What a dry run said, entry by entry; nothing where there was none."""

    compared: Transferred | None
    entries: Changes

    @property
    def is_small(self) -> bool:
        """Whether bringing over what differs alone is worth it."""
        if self.compared is None:
            return False
        found = [match for line in self.compared.statistics if (match := _FILES.match(line))]
        count = int(found[-1][1]) if found else 0
        return 0 < len(self.entries) <= min(ENTRIES_LIMIT, max(100, SHARE_LIMIT * count))

    def write_list(self, file: IO[bytes]) -> None:
        """Write what is to be transferred, NUL after each: what changed, and where something was deleted.

        rsync transfers the directories above each, with their times. The source's own is among them.
        """
        last = b""
        for change in self.entries:
            path = change.path.rpartition(b"/")[0] if change.kind is Kind.DELETED else change.path
            # The name of the directory itself would mean everything in it.
            if path not in (b"", b".", last):
                file.write(_HERE + path + b"\0")
                last = path
        file.write(_HERE + _NOTHING + b"\0")
        file.flush()


_NOTHING = b".turku-nothing"
"""A name that need not be there: some must be said for the source's own directory to come."""
