"""What the modes have in common whose file system shares blocks: rsync writes into the files of the working tree.

Nothing of the working tree is shared with a snapshot but blocks, so that a run that failed or was killed leaves it to
the next one as it is.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from turku.storage.snapshots import in_place_writing, unfinished
from turku.storage.snapshots.built_tree import BuiltTree
from turku.storage.snapshots.mode import Workspace
from turku.storage.snapshots.place import is_directory, make_directory, move_directory


class BlockSharing(BuiltTree):
    """The order of preparing; what a working tree is made of is the mode's own."""

    shares_blocks = True

    def prepare(self, base: str | None) -> Workspace:
        self._refuse_if_impossible()
        place = self.place
        if not is_directory(place.snapshots_dir):
            make_directory(place.snapshots_dir)
            if is_directory(place.working_tree):
                # A mode without history left it, and there is no snapshot that it could share a file with.
                place.mark_in_place(place.working_tree)
        if is_directory(place.cloning):
            self._doom(place.cloning)
        self.tidy()
        is_resumed = self._find_working_tree()
        if not is_resumed:
            place.in_place_mark.unlink(missing_ok=True)
            self._make_working_tree(self._beginning(base))
        largest_file_bytes = in_place_writing.prepare(place.working_tree)
        return Workspace(
            place.working_tree,
            self._basis_options("--copy-dest", None),
            writes_in_place=True,
            # A receiver that was taken over does not reach history.
            read_only=(place.snapshots_dir.absolute(),),
            block_bytes=in_place_writing.block_bytes(largest_file_bytes),
            is_resumed=is_resumed,
        )

    @abstractmethod
    def _refuse_if_impossible(self) -> None:
        """Raise BackupFailed where the file system cannot do it."""

    @abstractmethod
    def _find_working_tree(self) -> bool:
        """Whether a run before left a working tree of this mode; what another mode left is gathered."""

    @abstractmethod
    def _make_working_tree(self, beginning: Path | None) -> None:
        """Let the working tree be there with what the tree ``beginning`` has, sharing blocks; at once or not at all."""

    def _beginning(self, base: str | None) -> Path | None:
        if base is not None:
            return self.place.tree(base)
        return self.place.unfinished if is_directory(self.place.unfinished) else None

    def _take_back_committing(self) -> None:
        """Go on with a tree that was complete when its run was killed."""
        place = self.place
        if not is_directory(place.committing):
            return
        if is_directory(place.working_tree):
            unfinished.gather(place.committing, place)
        else:
            move_directory(place.committing, place.working_tree)

    def _bring_into_place(self) -> None:
        move_directory(self.place.cloning, self.place.working_tree)
