"""What the modes have in common whose snapshot is built in the working tree and then moved to its name."""

from __future__ import annotations

from pathlib import Path

from turku.core import durable
from turku.storage.snapshots import links
from turku.storage.snapshots.mode import SnapshotMode
from turku.storage.snapshots.place import is_directory, move_directory
from turku.storage.snapshots.record import SnapshotRecord


class BuiltTree(SnapshotMode):
    """A snapshot's life: ``<source>/`` while rsync writes, ``.committing`` when complete, then its name.

    The rename from ``.committing`` to the name is the commit. What a killed run left before it is the next one's to
    use; what it left after it, that one repairs by going on.
    """

    keeps_history = True

    def abandon(self) -> None:
        for path in (self.place.working_tree, self.place.unfinished, self.place.cloning):
            if is_directory(path):
                self._doom(path)
        self.sweep()

    def commit(self, record: SnapshotRecord) -> str:
        place = self.place
        # The parent changes in a step before the commit: a tree that forbids writing needs its mode changed for it,
        # and no snapshot may be seen with a mode that is not its own.
        move_directory(place.working_tree, place.committing)
        self._seal(place.committing)
        durable.sync_file_system(place.committing)
        record.write(place)
        durable.rename(place.committing, place.snapshot(record.name))
        durable.write_symbolic_link(place.latest, record.name)
        for path in (place.unfinished, place.cloning):
            if is_directory(path):
                self._doom(path)
        return record.name

    def commit_unchanged(self, record: SnapshotRecord, base: str) -> str:
        place = self.place
        record.write(place)
        links.make(place, record.name, base)
        durable.write_symbolic_link(place.latest, record.name)
        # Nothing that failed runs left is wanted: the source is as it is in the snapshot.
        for path in self._leftovers():
            if is_directory(path):
                self._doom(path)
        return record.name

    def _leftovers(self) -> list[Path]:
        return [self.place.unfinished, self.place.cloning, self.place.committing]

    def _seal(self, tree: Path) -> None:
        """Protect the complete tree from being changed, where the mode can."""
