"""``link-dest``: each snapshot is a whole tree of its own, unchanged files being hard links into the one before it.

rsync makes none of these links, whatever the mode is called: it writes what differs into a staging directory, and our
own code assembles the tree (``assembly.py``).
"""

from __future__ import annotations

from turku.policy import snapshot_mode
from turku.storage.fs import subvolume
from turku.storage.fs import tree as fs
from turku.storage.rsync.workspace import Workspace
from turku.storage.snapshots.built_tree import BuiltTree


class LinkDest(BuiltTree):
    """rsync writes into the staging directory; it reads the base, and what another mode left."""

    name = snapshot_mode.LINK_DEST

    def prepare(self, base: str | None) -> Workspace:
        place = self.place
        fs.make_directory(place.snapshots_dir)
        self.tidy()
        self._mark_for_deletion(place.cloning)
        if subvolume.is_subvolume(place.staging):
            # Of another mode: nothing can be moved out of it.
            self._mark_for_deletion(place.staging)
        is_resumed = fs.is_directory(place.staging)
        fs.make_directory(place.staging)
        basis = [*([place.tree(base)] if base is not None else []), *self._former_trees()]
        return Workspace(place.staging, tuple(basis), is_new=not is_resumed and not basis, is_resumed=is_resumed)
