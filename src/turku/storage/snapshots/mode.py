"""The interface of a snapshot mode: it prepares the workspace of rsync and commits the result to history.

The sequence of a backup is ``prepare`` (which cleans up after killed runs), rsync in the workspace, and ``commit``. A
failed run calls nothing more, and the next ``prepare`` uses its leftovers. ``collect`` deletes trees that are marked
for deletion.
"""

import logging
import secrets
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from turku.errors import TurkuError
from turku.policy import snapshot_mode
from turku.storage.disk import deletion, snapshot_links
from turku.storage.disk.snapshot_record import SnapshotRecord
from turku.storage.disk.source_directory import RECORD_SUFFIX, SourceDirectory
from turku.storage.fs import subvolume
from turku.storage.fs import tree as fs
from turku.storage.rsync.request import Workspace

_LOG = logging.getLogger(__name__)


class SnapshotMode(ABC):
    """A way to keep the snapshots of one source."""

    name: ClassVar[str]
    """The name in configuration and contract."""
    keeps_history: ClassVar[bool]
    shares_blocks: ClassVar[bool] = False
    """True if a changed file takes only the space of its changed blocks. rsync then writes in place."""

    def __init__(self, place: SourceDirectory) -> None:
        self.place = place

    @abstractmethod
    def prepare(self, base: str | None) -> Workspace:
        """Return a workspace in which rsync cannot change a file that a snapshot shares.

        ``base`` is the snapshot that the next one is built upon, if there is one.
        """

    def commit_unchanged(self, record: SnapshotRecord, base: str) -> str:
        """Make a snapshot durably that is a link to the snapshot ``base``. It needs no ``prepare``."""
        raise NotImplementedError(f"{self.name} has no snapshots")

    @abstractmethod
    def commit(self, record: SnapshotRecord, built: Path) -> str | None:
        """Make the complete tree ``built`` the snapshot durably. Return its name, None in a mode without history."""

    def discard_staging(self) -> None:  # noqa: B027  (a mode may have nothing to discard)
        """Delete the files of a run that exceeded its limits, unless they are the source's only copy."""

    def discard_assembly(self) -> None:
        """Mark an unfinished assembled tree for deletion. The caller holds the source's lock."""
        self._mark_for_deletion(self.place.assembling)

    def tidy(self) -> None:
        """Remove small leftovers of killed runs, which is quick. A failure is a warning."""
        if not fs.is_directory(self.place.snapshots_dir):
            return
        try:
            fs.remove_temporary_files(self.place.snapshots_dir)
            fs.unlink(self.place.fetch_list)
            snapshot_links.tidy(self.place)
            self._remove_orphaned_records()
        except (OSError, TurkuError) as error:
            _LOG.warning("%s: cannot clean up: %s", self.place.snapshots_dir, error)

    def collect(self, go_on: deletion.GoOn = lambda: True) -> None:
        """Delete the trees that are marked for deletion, also by killed runs, for as long as ``go_on`` says so."""
        deletion.collect(self.place, go_on)
        self.tidy()

    def _mark_for_deletion(self, *paths: Path) -> None:
        """Hide the existing directories among the paths for ``collect``. Anything else at these paths is removed."""
        for path in paths:
            if fs.is_directory(path):
                fs.move_directory(path, deletion.path_of(self.place, f"{path.name.lstrip('.')}-{secrets.token_hex(4)}"))
            else:
                fs.unlink(path)

    def _remove_orphaned_records(self) -> None:
        # A run was killed between writing the record and the commit, or between the deletions of snapshot and record.
        for entry in fs.names(self.place.snapshots_dir):
            name = entry.removesuffix(RECORD_SUFFIX)
            is_ours = name != entry and name.startswith(f"{self.place.source}_")
            if is_ours and not fs.exists(self.place.snapshot(name)):
                fs.unlink(self.place.record_path(name))


class BuiltTree(SnapshotMode):
    """A mode that builds a tree under a hidden name beside the snapshots. The rename to its own name is the commit.

    The next run uses or removes the leftovers of a run that was killed before the rename.
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
        # The snapshot has the source's state, so the leftovers of earlier runs are of no use.
        self._mark_for_deletion(place.staging, place.cloning, place.assembling, place.former_tree, place.working_tree)
        fs.unlink(place.in_place_mark)
        fs.unlink(place.unfinished_mark)

    def _seal(self, tree: Path) -> None:
        """Protect the complete tree from changes if the mode can."""

    def _former_trees(self) -> list[Path]:
        """Return trees of the source that another mode, or an existing storage, left and that are no snapshots."""
        return [path for path in (self.place.working_tree, self.place.former_tree) if fs.is_directory(path)]


class LinkDest(BuiltTree):
    """Each snapshot is a whole tree, and its unchanged files are hard links into the one before it.

    rsync makes none of these links. It writes differences to the staging directory, and reads the base and trees that
    another mode left. Our own code assembles the tree (``assembly.py``).
    """

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


class InPlace(SnapshotMode):
    """The working tree is the backup, without history, for files that change too much to share.

    A source that kept history before may have a working tree that shares files with its snapshots, and syncing in place
    would change both. Such a tree is set aside, and a new one is filled by copying from it and the newest snapshot.
    """

    name = snapshot_mode.NONE
    keeps_history = False

    def prepare(self, base: str | None) -> Workspace:
        place = self.place
        if not fs.is_directory(place.snapshots_dir):
            if not fs.is_directory(place.working_tree):
                self._mark_unfinished()
            fs.make_directory(place.working_tree)
            return Workspace(place.working_tree)
        self.tidy()
        if not place.is_marked_in_place(place.working_tree):
            if fs.is_directory(place.working_tree):
                self._mark_for_deletion(place.former_tree)
                fs.move_directory(place.working_tree, place.former_tree)
            self._mark_unfinished()
            fs.make_directory(place.working_tree)
            place.mark_in_place(place.working_tree)
        former = [place.tree(base)] if base is not None else []
        former += [path for path in (place.staging, place.former_tree) if fs.is_directory(path)]
        return Workspace(place.working_tree, tuple(former))

    def commit(self, record: SnapshotRecord, built: Path) -> None:  # noqa: ARG002  (nothing is recorded)
        place = self.place
        fs.sync(built)
        fs.unlink(place.unfinished_mark)
        self._mark_for_deletion(place.staging, place.former_tree)

    def _mark_unfinished(self) -> None:
        fs.write_bytes(self.place.unfinished_mark, b"")
