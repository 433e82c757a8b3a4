"""``link-dest``: each snapshot is a whole tree of its own, unchanged files being hard links into the one before it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from turku.storage.snapshots import merging, tree_removal, unfinished
from turku.storage.snapshots.built_tree import BuiltTree
from turku.storage.snapshots.mode import Workspace
from turku.storage.snapshots.place import is_directory, make_directory, move_directory


class LinkDest(BuiltTree):
    """The working tree is new each time. What killed runs left is gathered into ``.unfinished`` and taken from."""

    name = "link-dest"
    links_unchanged = True
    merges = True

    def prepare(self, base: str | None) -> Workspace:
        place = self.place
        make_directory(place.snapshots_dir)
        self.tidy()
        # From here on the working tree has links into snapshots.
        place.in_place_mark.unlink(missing_ok=True)
        unfinished.gather(place.committing, place)
        unfinished.gather(place.working_tree, place)
        make_directory(place.working_tree)
        options = self._basis_options("--link-dest", base)
        return Workspace(place.working_tree, options, is_new=not options)

    def linking(self, base: str) -> merging.Linking:
        if is_directory(self.place.cloning):
            self._doom(self.place.cloning)
        return merging.Linking(self.place.tree(base), self.place.cloning)

    def is_clear(self) -> bool:
        place = self.place
        return not any(map(os.path.lexists, (place.working_tree, place.committing, place.unfinished)))

    def narrowed(self, workspace: Workspace, base: str) -> Workspace:
        return replace(
            workspace,
            options=self._basis_options("--copy-dest", base),
            # What it needs of history it copies; so a receiver that was taken over does not reach it.
            read_only=(self.place.snapshots_dir.absolute(),),
        )

    def adopt(self, tree: Path) -> None:
        rest = self._doom(self.place.working_tree)
        move_directory(tree, self.place.working_tree)
        # Directories alone, and no more of them than changed.
        tree_removal.remove_tree(rest)

    def _leftovers(self) -> list[Path]:
        is_anothers = self.place.is_marked_in_place(self.place.working_tree)
        return [*super()._leftovers(), *([] if is_anothers else [self.place.working_tree])]
