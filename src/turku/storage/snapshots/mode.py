"""The interface of a snapshot mode: where rsync writes, and how what it wrote becomes history.

One backup: ``prepare`` (cleans up after killed runs), rsync into the workspace, ``commit``. A run that fails calls
nothing more: what it left in the working tree is the next ``prepare``'s to use. ``discard`` and ``sweep`` remove
history.
"""

from __future__ import annotations

import logging
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from turku.core import durable
from turku.errors import TurkuError
from turku.storage.snapshots import tree_removal
from turku.storage.snapshots.place import DELETING_PREFIX, INFORMATION_SUFFIX, SourcePlace, is_directory
from turku.storage.snapshots.record import SnapshotRecord

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workspace:
    """Where rsync writes, and the options that this mode needs."""

    directory: Path
    options: tuple[str, ...] = ()


class SnapshotMode(ABC):
    """Keeps the snapshots of one source in one way."""

    name: ClassVar[str]
    """As configuration and contract spell it."""
    keeps_history: ClassVar[bool]

    def __init__(self, place: SourcePlace) -> None:
        self.place = place

    @abstractmethod
    def prepare(self, base: str | None) -> Workspace:
        """A place to write into, with nothing in it that a snapshot shares and rsync could change.

        ``base`` is the newest snapshot, where there is one.
        """

    @abstractmethod
    def commit(self, record: SnapshotRecord) -> str | None:
        """The name of the snapshot made of what rsync wrote, durable and whole; None in a mode without history."""

    def abandon(self) -> None:  # noqa: B027  (a mode may have nothing to give back)
        """Give back what a run wrote that took more than it may; nothing where that is all there is of the source."""

    def discard(self, name: str) -> None:
        """Let the snapshot be gone from history at once; ``sweep`` frees its space."""
        durable.rename(self.place.snapshot(name), self._doomed(name))
        self.place.information(name).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what was discarded, also by runs that were killed. What cannot be removed is a warning."""
        if not is_directory(self.place.snapshots_dir):
            return
        try:
            durable.remove_temporary_files(self.place.snapshots_dir)
            for entry in list(self.place.snapshots_dir.iterdir()):
                if entry.name.startswith(DELETING_PREFIX):
                    self._remove_without_failing(entry)
            self._remove_orphaned_information()
        except OSError as error:
            _LOG.warning("%s: cannot clean up: %s", self.place.snapshots_dir, error.strerror or error)

    def _basis_options(self, option: str, base: str | None) -> tuple[str, ...]:
        """``option`` for every tree that rsync may take files from without asking the machine."""
        sources = [self.place.snapshot(base)] if base is not None else []
        if is_directory(self.place.unfinished):
            sources.append(self.place.unfinished)
        # Absolute: an rsync with the fix for CVE-2024-12086 refuses to open a basis file through '..', and a file that
        # changed in part then fails its verification (RsyncProject/rsync issue 928; seen with Debian's 3.2.7).
        return tuple(f"{option}={source.absolute()}" for source in sources)

    def _remove(self, path: Path) -> None:
        """Remove a tree of this mode; modes with volumes of their own have their own way."""
        tree_removal.remove_tree(path)

    def _remove_without_failing(self, path: Path) -> None:
        try:
            self._remove(path)
        except (TurkuError, OSError) as error:
            _LOG.warning("%s: cannot be removed, the next run tries again: %s", path, error)

    def _doom(self, path: Path) -> None:
        """Hide a directory beside the snapshots for ``sweep``."""
        durable.rename(path, self._doomed(f"{path.name.lstrip('.')}-{secrets.token_hex(4)}"))

    def _doomed(self, name: str) -> Path:
        return self.place.snapshots_dir / f"{DELETING_PREFIX}{name}"

    def _remove_orphaned_information(self) -> None:
        # Killed between writing it and the commit, or between a snapshot's going and its own.
        for entry in self.place.snapshots_dir.glob(f"*{INFORMATION_SUFFIX}"):
            name = entry.name.removesuffix(INFORMATION_SUFFIX)
            if name.startswith(f"{self.place.source}_") and not self.place.snapshot(name).exists():
                entry.unlink(missing_ok=True)
