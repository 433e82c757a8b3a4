"""Mode ``reflink``: each snapshot is a tree of clones of the one before it. Changed files share unchanged blocks.

The mode needs a file system that clones (XFS, btrfs). It costs inodes and the time to make them, so it suits large
files that change a little, not many small files that do not change.
"""

from __future__ import annotations

from pathlib import Path

from turku.errors import BackupFailed
from turku.policy import snapshot_mode
from turku.storage.fs import clone
from turku.storage.fs import tree as fs
from turku.storage.snapshots.block_sharing import BlockSharing


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
