"""Mode ``btrfs``: each snapshot is a read-only subvolume. Unchanged blocks are shared without a copy."""

from __future__ import annotations

from pathlib import Path

from turku.errors import BackupFailed
from turku.policy import snapshot_mode
from turku.storage.fs import clone, subvolume
from turku.storage.fs import tree as fs
from turku.storage.snapshots.block_sharing import BlockSharing


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
