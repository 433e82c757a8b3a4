"""``link-dest``: each snapshot is a whole tree of its own, unchanged files being hard links into the one before it."""

from __future__ import annotations

from turku.storage.snapshots import unfinished
from turku.storage.snapshots.built_tree import BuiltTree
from turku.storage.snapshots.mode import Workspace
from turku.storage.snapshots.place import make_directory


class LinkDest(BuiltTree):
    """The working tree is new each time. What killed runs left is gathered into ``.unfinished`` and taken from."""

    name = "link-dest"

    def prepare(self, base: str | None) -> Workspace:
        place = self.place
        make_directory(place.snapshots_dir)
        self.tidy()
        # From here on the working tree has links into snapshots.
        place.in_place_mark.unlink(missing_ok=True)
        unfinished.gather(place.committing, place)
        unfinished.gather(place.working_tree, place)
        make_directory(place.working_tree)
        return Workspace(place.working_tree, self._basis_options("--link-dest", base))
