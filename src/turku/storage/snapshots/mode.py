"""The interface of a snapshot mode: where rsync writes, and how what it wrote becomes history.

One backup: ``prepare`` (cleans up after killed runs), rsync into the workspace, ``commit``. A run that fails calls
nothing more: what it left in the working tree is the next ``prepare``'s to use. ``discard`` and ``sweep`` remove
history.
"""

from __future__ import annotations

import logging
import os
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from turku.core import durable
from turku.storage.snapshots import garbage, links
from turku.storage.snapshots.merging import Linking
from turku.storage.snapshots.place import (
    DELETING_PREFIX,
    INFORMATION_SUFFIX,
    SourcePlace,
    is_directory,
    move_directory,
)
from turku.storage.snapshots.record import SnapshotRecord

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workspace:
    """Where rsync writes, and the options that this mode needs."""

    directory: Path
    options: tuple[str, ...] = ()
    is_new: bool = False
    """Whether it is empty, and nothing that is written there is anybody else's."""
    writes_in_place: bool = False
    """Whether rsync may write into the files that are there: nobody else has them."""
    read_only: tuple[Path, ...] = ()
    """Directories beside it that rsync has no need to write to."""
    block_bytes: int | None = None
    """The blocks by which rsync is to compare files; None where that is rsync's own to say."""
    is_resumed: bool = False
    """Whether a run before this one has synced a part of it."""
    depth: int = 1
    """How many levels below the machine's directory it lies."""

    @property
    def machine_dir(self) -> Path:
        return self.directory.parents[self.depth - 1]


class SnapshotMode(ABC):
    """Keeps the snapshots of one source in one way."""

    name: ClassVar[str]
    """As configuration and contract spell it."""
    keeps_history: ClassVar[bool]
    shares_blocks: ClassVar[bool] = False
    """Whether a file that changed a little takes a little more space."""
    links_unchanged: ClassVar[bool] = False
    """Whether the snapshot of a source that did not change is a link to the one before it (``commit_unchanged``)."""

    merges: ClassVar[bool] = False
    """Whether what differs can be brought over alone (``linking``, ``narrowed``, ``adopt``)."""

    def __init__(self, place: SourcePlace) -> None:
        self.place = place

    @abstractmethod
    def prepare(self, base: str | None) -> Workspace:
        """A place to write into, with nothing in it that a snapshot shares and rsync could change.

        ``base`` is the newest snapshot, where there is one.
        """

    def commit_unchanged(self, record: SnapshotRecord, base: str) -> str:
        """The name of the snapshot that is what the snapshot ``base`` is, durable; nothing was prepared for it."""
        raise NotImplementedError(f"{self.name} does not link snapshots")

    @abstractmethod
    def commit(self, record: SnapshotRecord) -> str | None:
        """The name of the snapshot made of what rsync wrote, durable and whole; None in a mode without history."""

    def linking(self, base: str) -> Linking:
        """What makes a tree of hard links to all that the snapshot ``base`` has, beside the snapshots."""
        raise NotImplementedError(f"{self.name} does not merge")

    def is_clear(self) -> bool:
        """Whether no run before left anything that the next one would go on with."""
        return False

    def narrowed(self, workspace: Workspace, base: str) -> Workspace:
        """The workspace for a run about what differs from ``base`` alone: history is only read."""
        raise NotImplementedError(f"{self.name} does not merge")

    def adopt(self, tree: Path) -> None:
        """Let the tree, which what differs was moved into, be what is committed."""
        raise NotImplementedError(f"{self.name} does not merge")

    def abandon(self) -> None:  # noqa: B027  (a mode may have nothing to give back)
        """Give back what a run wrote that took more than it may; nothing where that is all there is of the source."""

    def discard(self, name: str) -> None:
        """Let the snapshot be gone from history at once; ``sweep`` frees its space, now or later."""
        links.hand_over(self.place, name)
        durable.rename(self.place.snapshot(name), self._doomed(name))
        self.place.information(name).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove the small things that killed runs left; in no time, and what cannot be removed is a warning."""
        if not is_directory(self.place.snapshots_dir):
            return
        try:
            durable.remove_temporary_files(self.place.snapshots_dir)
            links.tidy(self.place)
            self._remove_orphaned_information()
        except OSError as error:
            _LOG.warning("%s: cannot clean up: %s", self.place.snapshots_dir, error.strerror or error)

    def sweep(self, go_on: garbage.GoOn = lambda: True) -> None:
        """Remove what was discarded, also by runs that were killed, for as long as ``go_on`` says so."""
        garbage.remove(self.place, go_on)
        self.tidy()

    def _basis_options(self, option: str, base: str | None) -> tuple[str, ...]:
        """``option`` for every tree that rsync may take files from without asking the machine."""
        sources = [self.place.tree(base)] if base is not None else []
        if is_directory(self.place.unfinished):
            sources.append(self.place.unfinished)
        if any(source.lstat().st_dev != self.place.snapshots_dir.lstat().st_dev for source in sources):
            # A subvolume, of another mode: no hard link leads into it. rsync wants one kind for all.
            option = "--copy-dest"
        # Absolute: an rsync with the fix for CVE-2024-12086 refuses to open a basis file through '..', and a file that
        # changed in part then fails its verification (RsyncProject/rsync issue 928; seen with Debian's 3.2.7).
        return tuple(f"{option}={source.absolute()}" for source in sources)

    def _doom(self, path: Path) -> Path:
        """Hide a directory beside the snapshots for ``sweep``; where it lies now."""
        doomed = self._doomed(f"{path.name.lstrip('.')}-{secrets.token_hex(4)}")
        move_directory(path, doomed)
        return doomed

    def _doomed(self, name: str) -> Path:
        return self.place.snapshots_dir / f"{DELETING_PREFIX}{name}"

    def _remove_orphaned_information(self) -> None:
        # Killed between writing it and the commit, or between a snapshot's going and its own.
        for entry in self.place.snapshots_dir.glob(f"*{INFORMATION_SUFFIX}"):
            name = entry.name.removesuffix(INFORMATION_SUFFIX)
            if name.startswith(f"{self.place.source}_") and not os.path.lexists(self.place.snapshot(name)):
                entry.unlink(missing_ok=True)
