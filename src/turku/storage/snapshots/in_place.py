"""Mode ``none``: the source is synced in place without history, for files that change too much to share."""

from __future__ import annotations

from pathlib import Path

from turku.policy import snapshot_mode
from turku.storage.disk.snapshot_record import SnapshotRecord
from turku.storage.fs import tree as fs
from turku.storage.rsync.workspace import Workspace
from turku.storage.snapshots.mode import SnapshotMode


class InPlace(SnapshotMode):
    """The working tree is the backup.

    A source that kept history before may have a working tree that shares files with its snapshots, and syncing in place
    would change both. Such a tree is set aside, and a new one is filled by copying from it and the newest snapshot.
    """

    name = snapshot_mode.NONE
    keeps_history = False

    def prepare(self, base: str | None) -> Workspace:
        place = self.place
        if not fs.is_directory(place.snapshots_dir):
            if not fs.is_directory(place.working_tree):
                self._mark_unfinished()
            fs.make_directory(place.working_tree)
            return Workspace(place.working_tree)
        self.tidy()
        if not place.is_marked_in_place(place.working_tree):
            if fs.is_directory(place.working_tree):
                self._mark_for_deletion(place.former_tree)
                fs.move_directory(place.working_tree, place.former_tree)
            self._mark_unfinished()
            fs.make_directory(place.working_tree)
            place.mark_in_place(place.working_tree)
        former = [place.tree(base)] if base is not None else []
        former += [path for path in (place.staging, place.former_tree) if fs.is_directory(path)]
        return Workspace(place.working_tree, tuple(former))

    def commit(self, record: SnapshotRecord, built: Path) -> None:  # noqa: ARG002  (nothing is recorded)
        place = self.place
        fs.sync(built)
        fs.unlink(place.unfinished_mark)
        self._mark_for_deletion(place.staging, place.former_tree)

    def _mark_unfinished(self) -> None:
        fs.write_bytes(self.place.unfinished_mark, b"")
