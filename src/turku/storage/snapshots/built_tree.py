"""The life that snapshots have in common which are built beside the others and then get their names."""

from __future__ import annotations

from pathlib import Path

from turku.storage.disk import snapshot_links
from turku.storage.disk.snapshot_record import SnapshotRecord
from turku.storage.fs import tree as fs
from turku.storage.snapshots.mode import SnapshotMode


class BuiltTree(SnapshotMode):
    """A tree is built under a hidden name beside the snapshots; the rename to its own name is the commit.

    What a killed run left before the rename is the next one's to use, or to remove.
    """

    keeps_history = True

    def abandon(self) -> None:
        self._mark_for_deletion(self.place.staging, self.place.cloning, self.place.assembling)
        self.collect()

    def commit(self, record: SnapshotRecord, built: Path) -> str:
        place = self.place
        self._seal(built)
        fs.sync(built)
        record.write(place)
        fs.rename(built, place.snapshot(record.name))
        self._follow_up(record)
        return record.name

    def commit_unchanged(self, record: SnapshotRecord, base: str) -> str:
        record.write(self.place)
        snapshot_links.link(self.place, record.name, base)
        self._follow_up(record)
        return record.name

    def _follow_up(self, record: SnapshotRecord) -> None:
        place = self.place
        fs.write_symbolic_link(place.latest, record.name)
        # Nothing that runs before this one left is wanted any more: the source is as it is in the snapshot.
        self._mark_for_deletion(place.staging, place.cloning, place.assembling, place.former_tree, place.working_tree)
        fs.unlink(place.in_place_mark)
        fs.unlink(place.unfinished_mark)

    def _seal(self, tree: Path) -> None:
        """Protect the complete tree from being changed, where the mode can."""

    def _former_trees(self) -> list[Path]:
        """Return what another mode, or an existing storage, had of the source without its being a snapshot."""
        return [path for path in (self.place.working_tree, self.place.former_tree) if fs.is_directory(path)]
