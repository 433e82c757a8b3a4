"""``none``: the source is synced in place, without history, for files that change too much to share."""

from __future__ import annotations

from turku.core import durable
from turku.storage.snapshots import unfinished
from turku.storage.snapshots.mode import SnapshotMode, Workspace
from turku.storage.snapshots.place import is_directory, make_directory
from turku.storage.snapshots.record import SnapshotRecord


class InPlace(SnapshotMode):
    """The working tree is the backup.

    A source that kept history before has a working tree that may share files with its snapshots, and syncing in place
    would change both. Such a tree is set aside, and a new one is filled by copying from it and the newest snapshot.
    """

    name = "none"
    keeps_history = False

    def prepare(self, base: str | None) -> Workspace:
        place = self.place
        if not is_directory(place.snapshots_dir):
            make_directory(place.working_tree)
            return Workspace(place.working_tree)
        self.tidy()
        if not place.is_marked_in_place(place.working_tree):
            unfinished.gather(place.committing, place)
            unfinished.gather(place.working_tree, place)
            make_directory(place.working_tree)
            place.mark_in_place(place.working_tree)
        return Workspace(place.working_tree, self._basis_options("--copy-dest", base))

    def commit(self, record: SnapshotRecord) -> None:  # noqa: ARG002  (nothing is recorded)
        place = self.place
        durable.sync_file_system(place.working_tree)
        if is_directory(place.unfinished):
            self._doom(place.unfinished)
