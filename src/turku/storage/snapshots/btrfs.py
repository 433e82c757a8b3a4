"""``btrfs``: each snapshot is a read-only subvolume; what did not change is shared, by blocks and without a copy."""

from __future__ import annotations

from pathlib import Path

from turku.errors import BackupFailed
from turku.storage.snapshots import clone, subvolume, unfinished
from turku.storage.snapshots.block_sharing import BlockSharing
from turku.storage.snapshots.place import is_directory


class Btrfs(BlockSharing):
    """The working tree is a snapshot of the newest one that rsync may write to; sealed, it becomes the next one."""

    name = "btrfs"

    def _refuse_if_impossible(self) -> None:
        if not subvolume.is_btrfs(self.place.machine_dir):
            raise BackupFailed(
                f"snapshot_mode: btrfs, but {self.place.machine_dir} does not lie on btrfs",
                hint="'auto' takes what the file system can do",
            )

    def _find_working_tree(self) -> bool:
        place = self.place
        for path in (place.committing, place.working_tree):
            # A subvolume has no file that another tree has.
            if subvolume.is_subvolume(path):
                subvolume.set_read_only(path, read_only=False)
            else:
                unfinished.gather(path, place)
        self._take_back_committing()
        return is_directory(place.working_tree)

    def _make_working_tree(self, beginning: Path | None) -> None:
        place = self.place
        if beginning is None:
            subvolume.create(place.working_tree)
        elif subvolume.is_subvolume(beginning):
            subvolume.snapshot(beginning, place.working_tree)
        else:
            # Of another mode.
            subvolume.create(place.cloning)
            clone.clone_tree(beginning, place.cloning)
            self._bring_into_place()

    def _seal(self, tree: Path) -> None:
        subvolume.set_read_only(tree, read_only=True)
