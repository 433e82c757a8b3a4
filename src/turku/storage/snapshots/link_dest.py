"""``link-dest``: each snapshot is a whole tree of its own, unchanged files being hard links into the one before it."""

from __future__ import annotations

from turku.core import durable
from turku.storage.snapshots import unfinished
from turku.storage.snapshots.mode import SnapshotMode, Workspace
from turku.storage.snapshots.place import is_directory, make_directory, move_directory
from turku.storage.snapshots.record import SnapshotRecord


class LinkDest(SnapshotMode):
    """A snapshot's life: ``<source>/`` while rsync writes, ``.committing`` when complete, then its name.

    The rename from ``.committing`` to the name is the commit. Whatever a killed run left before it is gathered into
    ``.unfinished`` by the next one; what it left after it, that one repairs by going on.
    """

    name = "link-dest"
    keeps_history = True

    def prepare(self, base: str | None) -> Workspace:
        place = self.place
        make_directory(place.snapshots_dir)
        self.sweep()
        # From here on the working tree has links into snapshots.
        place.in_place_mark.unlink(missing_ok=True)
        unfinished.gather(place.committing, place)
        unfinished.gather(place.working_tree, place)
        make_directory(place.working_tree)
        return Workspace(place.working_tree, self._basis_options("--link-dest", base))

    def abandon(self) -> None:
        for path in (self.place.working_tree, self.place.unfinished):
            if is_directory(path):
                self._doom(path)
        self.sweep()

    def commit(self, record: SnapshotRecord) -> str:
        place = self.place
        # The parent changes in a step before the commit: a tree that forbids writing needs its mode changed for it,
        # and no snapshot may be seen with a mode that is not its own.
        move_directory(place.working_tree, place.committing)
        durable.sync_file_system(place.committing)
        record.write(place)
        durable.rename(place.committing, place.snapshot(record.name))
        durable.write_symbolic_link(place.latest, record.name)
        if is_directory(place.unfinished):
            self._doom(place.unfinished)
        return record.name
