"""Bringing over a source: what differs is asked first, and then nothing, what differs alone, or all is transferred.

A source that did not change needs no tree. One that changed little gets a tree of hard links to the newest snapshot's
files, into which what differs is moved; rsync itself only ever writes into a new directory, or into a working tree
that shares no file with a snapshot (threats M4, M9).
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.errors import BackupFailed
from turku.storage import catalog, figures, limits, pacing, transfer
from turku.storage.changes import Change, Changes, Kind, Line
from turku.storage.configuration import Storage
from turku.storage.difference import Difference
from turku.storage.snapshots import SnapshotMode, Workspace
from turku.storage.snapshots.merging import CannotMerge, Linking, merge
from turku.storage.snapshots.place import SourcePlace, is_directory
from turku.storage.transfer import Transferred

_LOWEST_DESCRIPTOR = 64
_LOG = logging.getLogger(__name__)


class Incomplete(BackupFailed):
    """rsync ended, and says that not all is there."""


@dataclass(frozen=True)
class Brought:
    """A complete tree, ready to be committed."""

    transferred: Transferred
    workspace: Workspace
    has_unfinished: bool
    """Whether some of it had been brought over by runs before."""


@dataclass(frozen=True)
class Bringing:
    """One backup's way from the machine to a complete tree."""

    place: SourcePlace
    configuration: Storage
    daemon: transfer.Daemon
    mode: SnapshotMode
    selected: transfer.Selection
    bounds: limits.Bounds
    base: str | None
    """The snapshot that the next one is built upon."""
    clock: Clock = SYSTEM_CLOCK

    @property
    def existing_base(self) -> str:
        """``base``, where the caller knows that there is one."""
        if self.base is None:
            raise ValueError("there is no snapshot yet")
        return self.base

    @contextmanager
    def linking(self) -> Iterator[Linking | None]:
        """What makes the tree of links, from the first difference on; None where it is of no use."""
        if self.base is None or not self.mode.merges or self.selected.hard_links or not self.mode.is_clear():
            yield None
            return
        with self.mode.linking(self.base) as linking:
            yield linking

    def compare(self, differing: Changes, linking: Linking | None) -> Transferred | None:
        """What rsync says of a dry run against the newest snapshot, ``differing`` being filled.

        None where it does not say all that a run would do, or that would be of no use. Raises as ``bring`` does.
        """
        if self.base is None or not self.mode.links_unchanged or self.selected.compare_contents:
            return None

        def note(line: Line) -> None:
            if linking is not None:
                linking.begin()
            differing.note(line)

        compared = self._run(
            Workspace(self.place.tree(self.base), depth=2, read_only=(self.place.machine_dir.absolute(),)),
            transfer.Extent(is_dry_run=True),
            note,
        )
        is_told = figures.of_run(compared.statistics, compared.suffixes, None) is not None
        return compared if compared.outcome.meaning == "complete" and compared.is_understood and is_told else None

    def bring(
        self, difference: Difference, changes: Changes, linking: Linking | None, ahead: catalog.Ahead | None = None
    ) -> Brought:
        """A complete tree; ``changes`` are filled, and ``ahead`` told of a tree that is all new.

        Raises BackupFailed for any other outcome.
        """
        workspace = self.mode.prepare(self.base)
        has_unfinished = self._has_unfinished(workspace)
        if linking is not None and difference.is_small and not has_unfinished:
            transferred = self._bring_what_differs(workspace, difference, changes, linking)
            if transferred is not None:
                return Brought(transferred, workspace, has_unfinished)
            changes.clear()
            workspace = self.mode.prepare(self.base)
            has_unfinished = self._has_unfinished(workspace)
        if linking is not None:
            linking.end()
        if ahead is not None and not has_unfinished:
            ahead.begin(workspace.directory, has_attributes=self._file_system(workspace).fake_super)

        def note(line: Line) -> None:
            changes.note(line)
            if ahead is not None:
                ahead.note(line)

        transferred = self._transfer(workspace, transfer.WHOLE, note)
        # In a tree of links rsync is not told what it need not make.
        tells_deletions = self.base is None or self.mode.shares_blocks
        changes.tells_content = transferred.is_understood
        changes.is_complete = transferred.is_understood and tells_deletions and not has_unfinished
        return Brought(transferred, workspace, has_unfinished or transferred.is_continued)

    def _has_unfinished(self, workspace: Workspace) -> bool:
        return workspace.is_resumed or is_directory(self.place.unfinished)

    def _bring_what_differs(
        self, workspace: Workspace, difference: Difference, changes: Changes, linking: Linking
    ) -> Transferred | None:
        """What came of it; None where it cannot be done in this way."""
        if difference.compared is None:
            return None
        base, spool = self.existing_base, self.place.machine_dir
        narrowed = self.mode.narrowed(workspace, base)
        try:
            with Changes(spool) as arrived, _list_of(difference, spool) as listed:
                linking.begin()
                transferred = self._transfer(narrowed, transfer.Extent(listed=listed), arrived.note)
                is_told = transferred.is_understood or transferred.is_continued
                if not is_told or arrived.first_path != b".":
                    raise CannotMerge("rsync does not say what became of the source's own directory")
                linking.finish()
                merge(
                    workspace.directory,
                    linking.tree,
                    difference.entries,
                    lambda path: changes.add(Change(path, Kind.DELETED)),
                )
                for change in arrived:
                    changes.add(change)
                self.mode.adopt(linking.tree)
        except (CannotMerge, Incomplete) as error:
            _LOG.info("%s: all is brought over, not what differs alone: %s", self.place.source, error)
            return None
        changes.is_complete = changes.tells_content = transferred.is_understood
        return difference.compared.with_traffic_of(transferred)

    def _transfer(self, workspace: Workspace, extent: transfer.Extent, on_entry: Callable[[Line], None]) -> Transferred:
        """What came of a complete transfer. Raises BackupFailed for any other, Incomplete where rsync says so."""
        directories = self._directories(workspace)
        is_complete = took_too_much = False
        try:
            transferred = self._paced(workspace, extent, on_entry)
            if not transferred.outcome.success:
                raise Incomplete(transferred.outcome.meaning, details="\n".join(transferred.last_lines))
            is_complete = True
            return transferred
        except limits.TookTooMuch:
            took_too_much = True
            raise
        finally:
            if self._directories(workspace) != directories:
                # What follows is done outside the sandbox: it must not be led into another machine's directory.
                raise BackupFailed(
                    "the receiver changed the directories that it was to write into: it was taken over (threats M9)",
                    hint="keep the log, and look at that machine, and at what it holds here, before its next backup",
                )
            if not is_complete and (took_too_much or limits.is_low(self.configuration, self.place.machine_dir)):
                # The next run would start from it; others need the room more (threats M11).
                self.mode.abandon()

    def _paced(self, workspace: Workspace, extent: transfer.Extent, on_entry: Callable[[Line], None]) -> Transferred:
        """What came of it, under the bandwidth limits of the times of day that it goes on for."""

        if self.selected.bandwidth_limits.changes:
            # A further part finds what the one before it brought.
            workspace = replace(workspace, is_new=False)

        def part(selected: transfer.Selection, bounds: limits.Bounds) -> Transferred:
            return replace(self, selected=selected, bounds=bounds)._run(workspace, extent, on_entry)

        # Without history the tree is the only copy: half a file must not take a whole one's place.
        selected = replace(self.selected, keeps_partial_files=self.mode.keeps_history)
        return pacing.run(selected, self.bounds, part, configuration=self.configuration, clock=self.clock)

    def _run(self, workspace: Workspace, extent: transfer.Extent, on_entry: Callable[[Line], None]) -> Transferred:
        return transfer.run(
            self.configuration,
            self.daemon,
            self.selected,
            workspace,
            self._file_system(workspace),
            bounds=self.bounds,
            base=self.place.tree(self.base) if self.base and self.mode.keeps_history else None,
            extent=extent,
            on_entry=on_entry,
        )

    def _file_system(self, workspace: Workspace) -> transfer.FileSystem:
        return transfer.file_system(
            workspace, fake_super=self.configuration.fake_super, keep_devices=self.configuration.keep_devices
        )

    def _directories(self, workspace: Workspace) -> tuple[tuple[int, int] | None, ...]:
        """Which directories lie where the commit will work; None for what is none, as a link to one."""
        found = []
        for path in (workspace.directory, self.place.snapshots_dir):
            status = path.lstat() if is_directory(path) else None
            found.append(None if status is None else (status.st_dev, status.st_ino))
        return tuple(found)


@contextmanager
def _list_of(difference: Difference, directory: Path) -> Iterator[int]:
    """A descriptor of the list of what is to be transferred, in a file without a name."""
    with tempfile.TemporaryFile(dir=directory) as file:
        difference.write_list(file)
        # The shell of the sandbox takes low numbers for itself.
        descriptor = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, _LOWEST_DESCRIPTOR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
