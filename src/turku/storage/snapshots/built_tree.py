"""The base class of modes that build a snapshot under a hidden name and then rename it."""

from __future__ import annotations

from pathlib import Path

from turku.storage.disk import snapshot_links
from turku.storage.disk.snapshot_record import SnapshotRecord
from turku.storage.fs import tree as fs
from turku.storage.snapshots.mode import SnapshotMode


class BuiltTree(SnapshotMode):
    """A mode that builds a tree under a hidden name beside the snapshots. The rename to its own name is the commit.

    The next run uses or removes the leavings of a run that was killed before the rename.
    """

    keeps_history = True

    def discard_staging(self) -> None:
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
        # The snapshot has the source's state, so the leavings of earlier runs are of no use.
        self._mark_for_deletion(place.staging, place.cloning, place.assembling, place.former_tree, place.working_tree)
        fs.unlink(place.in_place_mark)
        fs.unlink(place.unfinished_mark)

    def _seal(self, tree: Path) -> None:
        """Protect the complete tree from changes if the mode can."""

    def _former_trees(self) -> list[Path]:
        """Return trees of the source that another mode, or an existing storage, left and that are no snapshots."""
        return [path for path in (self.place.working_tree, self.place.former_tree) if fs.is_directory(path)]
