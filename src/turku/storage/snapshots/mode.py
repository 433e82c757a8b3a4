"""The interface of a snapshot mode: it prepares the workspace of rsync and commits the result to history.

The sequence of a backup is ``prepare`` (which cleans up after killed runs), rsync in the workspace, and ``commit``. A
failed run calls nothing more, and the next ``prepare`` uses its leavings. ``collect`` deletes the trees that are marked
for deletion.
"""

from __future__ import annotations

import logging
import secrets
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from turku.errors import TurkuError
from turku.storage.disk import deletion, snapshot_links
from turku.storage.disk.snapshot_record import SnapshotRecord
from turku.storage.disk.source_directory import RECORD_SUFFIX, SourceDirectory
from turku.storage.fs import tree as fs
from turku.storage.rsync.workspace import Workspace

_LOG = logging.getLogger(__name__)


class SnapshotMode(ABC):
    """A way to keep the snapshots of one source."""

    name: ClassVar[str]
    """The name in configuration and contract."""
    keeps_history: ClassVar[bool]
    shares_blocks: ClassVar[bool] = False
    """True if a changed file takes only the space of its changed blocks. rsync then writes in place."""

    def __init__(self, place: SourceDirectory) -> None:
        self.place = place

    @abstractmethod
    def prepare(self, base: str | None) -> Workspace:
        """Return a workspace in which rsync cannot change a file that a snapshot shares.

        ``base`` is the snapshot that the next one is built upon, if there is one.
        """

    def commit_unchanged(self, record: SnapshotRecord, base: str) -> str:
        """Make a snapshot durably that is a link to the snapshot ``base``. It needs no ``prepare``."""
        raise NotImplementedError(f"{self.name} has no snapshots")

    @abstractmethod
    def commit(self, record: SnapshotRecord, built: Path) -> str | None:
        """Make the complete tree ``built`` the snapshot durably. Return its name, None in a mode without history."""

    def discard_staging(self) -> None:  # noqa: B027  (a mode may have nothing to discard)
        """Delete the files of a run that exceeded its limits, unless they are the source's only copy."""

    def discard_assembly(self) -> None:
        """Mark an unfinished assembled tree for deletion. The caller holds the source's lock."""
        self._mark_for_deletion(self.place.assembling)

    def tidy(self) -> None:
        """Remove small leavings of killed runs, which is quick. A failure is a warning."""
        if not fs.is_directory(self.place.snapshots_dir):
            return
        try:
            fs.remove_temporary_files(self.place.snapshots_dir)
            fs.unlink(self.place.fetch_list)
            snapshot_links.tidy(self.place)
            self._remove_orphaned_records()
        except (OSError, TurkuError) as error:
            _LOG.warning("%s: cannot clean up: %s", self.place.snapshots_dir, error)

    def collect(self, go_on: deletion.GoOn = lambda: True) -> None:
        """Delete the trees that are marked for deletion, also by killed runs, for as long as ``go_on`` says so."""
        deletion.collect(self.place, go_on)
        self.tidy()

    def _mark_for_deletion(self, *paths: Path) -> None:
        """Hide the existing directories among the paths for ``collect``. Anything else at these paths is removed."""
        for path in paths:
            if fs.is_directory(path):
                fs.move_directory(path, deletion.path_of(self.place, f"{path.name.lstrip('.')}-{secrets.token_hex(4)}"))
            else:
                fs.unlink(path)

    def _remove_orphaned_records(self) -> None:
        # A run was killed between writing the record and the commit, or between the deletions of snapshot and record.
        for entry in fs.names(self.place.snapshots_dir):
            name = entry.removesuffix(RECORD_SUFFIX)
            is_ours = name != entry and name.startswith(f"{self.place.source}_")
            if is_ours and not fs.exists(self.place.snapshot(name)):
                fs.unlink(self.place.record_path(name))
