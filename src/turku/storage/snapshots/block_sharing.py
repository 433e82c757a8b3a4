"""The base class of modes whose file system shares blocks. rsync writes to the files of the staging directory.

The staging directory begins as a copy of the base. It shares only blocks with a snapshot, so a failed or killed run
leaves it to the next one.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from turku.storage.fs import tree as fs
from turku.storage.rsync.workspace import Workspace
from turku.storage.snapshots import rsync_inplace
from turku.storage.snapshots.built_tree import BuiltTree


class BlockSharing(BuiltTree):
    """The common sequence of preparation. Each mode makes the staging directory in its own way."""

    shares_blocks = True

    def prepare(self, base: str | None) -> Workspace:
        self._refuse_if_impossible()
        place = self.place
        fs.make_directory(place.snapshots_dir)
        self.tidy()
        self._mark_for_deletion(place.cloning, place.assembling)
        former = self._former_trees()
        is_resumed = self._can_resume()
        if not is_resumed:
            self._mark_for_deletion(place.staging)
            beginning = place.tree(base) if base is not None else next(iter(former), None)
            self._make_staging(beginning)
        largest_file_bytes = rsync_inplace.prepare(place.staging)
        return Workspace(
            place.staging,
            tuple(former),
            writes_in_place=True,
            block_bytes=rsync_inplace.block_bytes(largest_file_bytes),
            is_resumed=is_resumed,
        )

    @abstractmethod
    def _refuse_if_impossible(self) -> None:
        """Raise BackupFailed if the file system does not support the mode."""

    @abstractmethod
    def _can_resume(self) -> bool:
        """Return True if the staging directory exists and this mode made it."""

    @abstractmethod
    def _make_staging(self, beginning: Path | None) -> None:
        """Make the staging directory atomically, as a copy of the tree ``beginning`` that shares its blocks."""
