"""The base class of modes whose file system shares blocks. rsync writes to the files of the staging directory.

The staging directory begins as a copy of the base. It shares only blocks with a snapshot, so a failed or killed run
leaves it to the next one.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from turku.errors import BackupFailed
from turku.policy import snapshot_mode
from turku.storage.fs import clone, subvolume
from turku.storage.fs import tree as fs
from turku.storage.rsync.request import Workspace
from turku.storage.snapshots import rsync_inplace
from turku.storage.snapshots.mode import BuiltTree


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


class Reflink(BlockSharing):
    """The staging directory is cloned from the base, and becomes the next snapshot.

    Its mark distinguishes it from the staging directory of another mode, which has only a part of the source.
    """

    name = snapshot_mode.REFLINK

    def _refuse_if_impossible(self) -> None:
        if not clone.can_clone(self.place.machine_dir):
            raise BackupFailed(
                f"snapshot_mode: reflink, but the file system of {self.place.machine_dir} cannot clone files",
                hint="XFS (mkfs.xfs -m reflink=1) and btrfs can; 'auto' takes what the file system can do",
            )

    def _can_resume(self) -> bool:
        return self.place.is_marked_in_place(self.place.staging)

    def _make_staging(self, beginning: Path | None) -> None:
        place = self.place
        fs.make_directory(place.cloning)
        clone.keep_changes_small(place.cloning)
        if beginning is not None:
            clone.clone_tree(beginning, place.cloning)
        place.mark_in_place(place.cloning)
        fs.move_directory(place.cloning, place.staging)


class Btrfs(BlockSharing):
    """The staging directory is a writable snapshot of the base. Sealed, it becomes the next snapshot."""

    name = snapshot_mode.BTRFS

    def _refuse_if_impossible(self) -> None:
        if not subvolume.is_btrfs(self.place.machine_dir):
            raise BackupFailed(
                f"snapshot_mode: btrfs, but {self.place.machine_dir} does not lie on btrfs",
                hint="'auto' takes what the file system can do",
            )

    def _can_resume(self) -> bool:
        if not subvolume.is_subvolume(self.place.staging):
            return False
        # A run may have been killed between sealing and naming it.
        subvolume.set_read_only(self.place.staging, read_only=False)
        return True

    def _make_staging(self, beginning: Path | None) -> None:
        place = self.place
        if beginning is None:
            subvolume.create(place.staging)
        elif subvolume.is_subvolume(beginning):
            subvolume.snapshot(beginning, place.staging)
        else:
            # The base was made by another mode.
            subvolume.create(place.cloning)
            clone.clone_tree(beginning, place.cloning)
            fs.rename(place.cloning, place.staging)

    def _seal(self, tree: Path) -> None:
        subvolume.set_read_only(tree, read_only=True)
