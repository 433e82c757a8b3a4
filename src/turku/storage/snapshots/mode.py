"""The interface of a snapshot mode: where rsync writes, and how what it wrote becomes history.

One backup: ``prepare`` (cleans up after killed runs), rsync into the workspace, ``commit``. A run that fails calls
nothing more: what it left is the next ``prepare``'s to use. ``collect`` deletes what is marked for deletion.
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
    """Keeps the snapshots of one source in one way."""

    name: ClassVar[str]
    """As configuration and contract spell it."""
    keeps_history: ClassVar[bool]
    shares_blocks: ClassVar[bool] = False
    """True where a file that changed a little takes a little more space. Such a mode's run writes in place."""

    def __init__(self, place: SourceDirectory) -> None:
        self.place = place

    @abstractmethod
    def prepare(self, base: str | None) -> Workspace:
        """Return a place to write into, with nothing in it that a snapshot shares and rsync could change.

        ``base`` is the snapshot that the next one is built upon, where there is one.
        """

    def commit_unchanged(self, record: SnapshotRecord, base: str) -> str:
        """Make a snapshot that is a link to the snapshot ``base``, durably; nothing was prepared for it."""
        raise NotImplementedError(f"{self.name} has no snapshots")

    @abstractmethod
    def commit(self, record: SnapshotRecord, built: Path) -> str | None:
        """Make the complete tree ``built`` the snapshot, durably; return None in a mode without history."""

    def discard_staging(self) -> None:  # noqa: B027  (a mode may have nothing to give back)
        """Give back what a run wrote that took more than it may; nothing where that is all there is of the source."""

    def discard_assembly(self) -> None:
        """Give up a tree that was being assembled, where there is one. With the source's lock held."""
        self._mark_for_deletion(self.place.assembling)

    def tidy(self) -> None:
        """Remove the small things that killed runs left; in no time, and what cannot be removed is a warning."""
        if not fs.is_directory(self.place.snapshots_dir):
            return
        try:
            fs.remove_temporary_files(self.place.snapshots_dir)
            fs.unlink(self.place.fetch_list)
            snapshot_links.tidy(self.place)
            self._remove_orphaned_information()
        except (OSError, TurkuError) as error:
            _LOG.warning("%s: cannot clean up: %s", self.place.snapshots_dir, error)

    def collect(self, go_on: deletion.GoOn = lambda: True) -> None:
        """Delete the trees that are marked for deletion, also by killed runs, for as long as ``go_on`` says so."""
        deletion.collect(self.place, go_on)
        self.tidy()

    def _mark_for_deletion(self, *paths: Path) -> None:
        """Hide directories, those that are there, for ``collect``. Anything else at these paths is removed."""
        for path in paths:
            if fs.is_directory(path):
                fs.move_directory(path, deletion.path_of(self.place, f"{path.name.lstrip('.')}-{secrets.token_hex(4)}"))
            else:
                fs.unlink(path)

    def _remove_orphaned_information(self) -> None:
        # Killed between writing it and the commit, or between a snapshot's going and its own.
        for entry in fs.names(self.place.snapshots_dir):
            name = entry.removesuffix(RECORD_SUFFIX)
            is_ours = name != entry and name.startswith(f"{self.place.source}_")
            if is_ours and not fs.exists(self.place.snapshot(name)):
                fs.unlink(self.place.record_path(name))
