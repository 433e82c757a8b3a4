"""What the modes have in common whose file system shares blocks: rsync writes into the files of the staging directory.

It begins as a copy of the base. Nothing of it is shared with a snapshot but blocks, so that a run that failed or was
killed leaves it to the next one as it is.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from turku.storage.fs import tree as fs
from turku.storage.rsync.workspace import Workspace
from turku.storage.snapshots import rsync_inplace
from turku.storage.snapshots.built_tree import BuiltTree


class BlockSharing(BuiltTree):
    """The order of preparing; what a staging directory is made of is the mode's own."""

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
        """Raise BackupFailed where the file system cannot do it."""

    @abstractmethod
    def _can_resume(self) -> bool:
        """Return True when the staging directory is there, and one that this mode began."""

    @abstractmethod
    def _make_staging(self, beginning: Path | None) -> None:
        """Make the staging directory with what the tree ``beginning`` has, sharing blocks; at once or not at all."""
