"""Mode ``link-dest``: each snapshot is a whole tree, and its unchanged files are hard links into the one before it.

In spite of the mode's name, rsync makes none of these links. It writes differences to a staging directory, and our own
code assembles the tree (``assembly.py``).
"""

from __future__ import annotations

from turku.policy import snapshot_mode
from turku.storage.fs import subvolume
from turku.storage.fs import tree as fs
from turku.storage.rsync.workspace import Workspace
from turku.storage.snapshots.built_tree import BuiltTree


class LinkDest(BuiltTree):
    """rsync writes to the staging directory, and reads the base and trees that another mode left."""

    name = snapshot_mode.LINK_DEST

    def prepare(self, base: str | None) -> Workspace:
        place = self.place
        fs.make_directory(place.snapshots_dir)
        self.tidy()
        self._mark_for_deletion(place.cloning)
        if subvolume.is_subvolume(place.staging):
            # Another mode made it, and nothing can be moved out of a subvolume.
            self._mark_for_deletion(place.staging)
        is_resumed = fs.is_directory(place.staging)
        fs.make_directory(place.staging)
        basis = [*([place.tree(base)] if base is not None else []), *self._former_trees()]
        return Workspace(place.staging, tuple(basis), is_new=not is_resumed and not basis, is_resumed=is_resumed)
