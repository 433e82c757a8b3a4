"""``reflink``: each snapshot is a tree of clones of the one before it; a file that changed shares what did not change.

For file systems that clone (XFS, btrfs). It costs inodes and the time to make them: for large files that change a
little, not for many small ones that do not.
"""

from __future__ import annotations

from pathlib import Path

from turku.errors import BackupFailed
from turku.storage.snapshots import clone, unfinished
from turku.storage.snapshots.block_sharing import BlockSharing
from turku.storage.snapshots.place import is_directory, make_directory
from turku.storage.snapshots.record import SnapshotRecord


class Reflink(BlockSharing):
    """The working tree is cloned from the newest snapshot, and becomes the next one.

    Its mark says that it shares no file with a snapshot, as one of another mode may: only such a one is written to.
    """

    name = "reflink"
    links_unchanged = True

    def commit(self, record: SnapshotRecord) -> str:
        name = super().commit(record)
        self.place.in_place_mark.unlink(missing_ok=True)
        return name

    def _refuse_if_impossible(self) -> None:
        if not clone.can_clone(self.place.machine_dir):
            raise BackupFailed(
                f"snapshot_mode: reflink, but the file system of {self.place.machine_dir} cannot clone files",
                hint="XFS (mkfs.xfs -m reflink=1) and btrfs can; 'auto' takes what the file system can do",
            )

    def _find_working_tree(self) -> bool:
        place = self.place
        for path in (place.committing, place.working_tree):
            if not place.is_marked_in_place(path):
                unfinished.gather(path, place)
        self._take_back_committing()
        return is_directory(place.working_tree)

    def _make_working_tree(self, beginning: Path | None) -> None:
        place = self.place
        make_directory(place.cloning)
        clone.keep_changes_small(place.cloning)
        if beginning is not None:
            clone.clone_tree(beginning, place.cloning)
        place.mark_in_place(place.cloning)
        self._bring_into_place()
