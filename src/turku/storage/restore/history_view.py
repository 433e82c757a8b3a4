"""What of a source's history somebody may see. What a view does not have does not exist for whoever asks through it.

A permission is made a view once, at the beginning of a session: the source, and where an operator approved a restore
its one snapshot and its paths. Every question of a machine, and every message to it, goes through the view.
``tests/unit/storage/test_history_view.py`` holds ``look`` and ``recovery`` to it.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from turku.core.clock import Clock
from turku.core.log import one_line
from turku.errors import CatalogUnusable, NotInHistory
from turku.protocol.restore_messages import SnapshotChoice, SnapshotRow
from turku.storage import catalog
from turku.storage.catalog import Catalog, Scope
from turku.storage.config.model import StorageConfig
from turku.storage.disk import history, snapshot_notes, volumes
from turku.storage.disk.history import StoredSnapshot
from turku.storage.disk.incompleteness import Incompleteness
from turku.storage.disk.snapshot_notes import Notes, Review
from turku.storage.disk.source_directory import LATEST, SourceDirectory
from turku.storage.fs import tree as fs
from turku.storage.restore import access_grants, history_rows
from turku.storage.restore.access_grants import AccessGrant
from turku.storage.restore.snapshot_lookup import CURRENT, UNFINISHED, SnapshotTree

_NAMED = 5
"""Entries that a remark names."""
_GONE = "the snapshot that the coordinator's permission is for is not kept here"
_LOG = logging.getLogger(__name__)


class HistoryView:
    """The snapshots and paths of one source that there are for one session."""

    def __init__(self, configuration: StorageConfig, permitted: AccessGrant, *, clock: Clock) -> None:
        """Raises NotInHistory where nothing of the machine, the source or the approved snapshot is kept, NoVolume."""
        self._configuration = configuration
        self._clock = clock
        self._approved = permitted.snapshot
        self._is_whole = not permitted.paths and permitted.snapshot is None
        self._place = _place(configuration, permitted)
        snapshots = history.stored_snapshots(self._place, configuration.state.timezone)
        # Until it is known which snapshot is meant.
        self.scope = Scope(None, permitted.paths)
        name = self._granted_name(permitted, snapshots)
        self.scope = Scope(name, permitted.paths)
        self._snapshots = tuple(each for each in snapshots if self.scope.has_snapshot(each.name))
        if name not in (None, CURRENT) and not self._snapshots:
            raise NotInHistory(_GONE, hint="it was removed since; ask for a restore of another one")

    def snapshots(self) -> Iterator[SnapshotRow]:
        """Yield a row for each snapshot, oldest first."""
        # Figures are of all paths.
        return history_rows.snapshot_rows(
            self._place,
            self._snapshots,
            self._configuration.state.timezone,
            now=self._clock.now(),
            has_figures=not self.scope.paths,
        )

    def choose(self, choice: SnapshotChoice) -> SnapshotTree:
        """Return the tree that is meant. Raises NotInHistory, InvalidValue for a moment that is not understood."""
        if self.scope.snapshot is not None:
            if choice not in (self._approved, SnapshotChoice(self.scope.snapshot)):
                raise NotInHistory(
                    "the coordinator's permission is for another snapshot of this source",
                    hint=f"it is for {self.scope.snapshot}",
                )
            choice = SnapshotChoice(self.scope.snapshot)
        return self._chosen(choice, self._snapshots)

    @contextmanager
    def catalog(self) -> Iterator[Catalog]:
        """The catalog, for the length of the block: it has what the view has. Raises CatalogUnusable."""
        try:
            opened = catalog.open_catalog(self._place, zone=self._configuration.state.timezone, scope=self.scope)
        except CatalogUnusable as error:
            if self.scope == catalog.WHOLE:
                raise
            # The reason may name what was being read.
            _LOG.warning("%s: %s", self._place.source, error.message)
            raise CatalogUnusable("the catalog cannot be used now; the storage's log says why") from None
        with opened:
            yield opened

    def _granted_name(self, permitted: AccessGrant, snapshots: Sequence[StoredSnapshot]) -> str | None:
        """Return the name of the one snapshot of the view; None where all are in it."""
        if permitted.snapshot is None or permitted.resolved is not None:
            return permitted.resolved
        try:
            name = self._chosen(permitted.snapshot, snapshots).name
        except NotInHistory:
            # The reason would name others.
            raise NotInHistory(_GONE) from None
        # A whole name means the same for ever.
        return (
            name
            if name == permitted.snapshot.name
            else access_grants.fix_snapshot(self._configuration, permitted, name)
        )

    def _unfinished(self, snapshots: Sequence[StoredSnapshot]) -> SnapshotTree:
        """Return what the runs of a source without a backup have brought. Raises NotInHistory."""
        place = self._place
        if snapshots or place.has_finished_tree():
            raise NotInHistory(
                f"source {place.source} has finished backups",
                hint="what a later run has begun is no part of them; leave --unfinished out",
            )
        tree = place.unfinished_tree()
        if tree is None:
            raise NotInHistory(f"of source {place.source} nothing was backed up, not even in part")
        return SnapshotTree(place, UNFINISHED, tree, None)

    def _chosen(self, choice: SnapshotChoice, snapshots: Sequence[StoredSnapshot]) -> SnapshotTree:
        place = self._place
        if choice.is_unfinished:
            return self._unfinished(snapshots)
        if choice.name in (None, LATEST, CURRENT) and choice.at is None and not snapshots:
            if place.has_finished_tree():
                return SnapshotTree(place, CURRENT, place.working_tree, None)
            raise NotInHistory(
                f"source {place.source} has no snapshot yet",
                hint="no backup of it was finished; --unfinished restores what there is of one"
                if place.unfinished_tree()
                else "",
            )
        by_name = {each.name: each for each in snapshots}
        name = choice.name
        if name and name not in by_name:
            # What tells one from the others is enough, as ``20261124-084122``.
            meant = [each for each in by_name if each.removeprefix(f"{place.source}_").startswith(name)]
            name = meant[0] if len(meant) == 1 else name
        chosen = by_name[
            catalog.choose(
                snapshots, name=name, at=choice.at, now=self._clock.now(), zone=self._configuration.state.timezone
            )
        ]
        noted = snapshot_notes.read(place, chosen.name)
        remarks = self._remarks(chosen, noted, snapshots, is_latest=choice.name in (None, LATEST) and choice.at is None)
        return SnapshotTree(place, chosen.name, chosen.path, chosen.moment, noted, remarks)

    def _remarks(
        self, chosen: StoredSnapshot, noted: Notes, snapshots: Sequence[StoredSnapshot], *, is_latest: bool
    ) -> tuple[str, ...]:
        now = self._clock.now()
        found = []
        if not noted.is_good:
            # The signs name files, and speak of other snapshots.
            signs = f": {'; '.join(noted.findings)}" if self._is_whole else ""
            judged = "was judged bad" if noted.review is Review.REJECTED else "is suspicious, and nobody has judged it"
            found.append(f"{chosen.name} {judged}{signs}{self._last_good(chosen, snapshots)}")
        if chosen.is_date_in_doubt(now):
            found.append(f"the date of {chosen.name} is in doubt, as the clock of the storage was wrong")
        elif is_latest and (doubtful := [each for each in snapshots if each.is_date_in_doubt(now)]):
            count = "1 snapshot does" if len(doubtful) == 1 else f"{len(doubtful)} snapshots do"
            found.append(
                f"{count} not count as the latest, as dates were in the future: the last one is {doubtful[-1].name}"
            )
        return (*found, *self._lost(chosen, noted.incomplete))

    def _lost(self, chosen: StoredSnapshot, lost: Incompleteness) -> Iterator[str]:
        """Yield what the view may tell of the files that could not be read."""
        inside = [each for each in lost.entries if self.scope.has_path(each.raw_path)]
        missing, stale = lost.missing_files, lost.stale_files
        if self.scope.paths:
            missing = sum(not each.is_stale for each in inside)
            stale = sum(each.files for each in inside if each.is_stale)
        if missing or stale:
            named = ", ".join(one_line(each.raw_path) for each in inside[:_NAMED])
            yield (
                f"{chosen.name} is incomplete: {missing} files could not be read and are not in it, {stale} are as "
                f"they were before{': ' if named else ''}{named}"
            )

    def _last_good(self, chosen: StoredSnapshot, snapshots: Sequence[StoredSnapshot]) -> str:
        earlier = itertools.takewhile(lambda each: each.name != chosen.name, snapshots)
        for each in reversed(list(earlier)):
            if snapshot_notes.read(self._place, each.name).is_good:
                return f"; the last good one before it is {each.name}"
        return ""


def _place(configuration: StorageConfig, permitted: AccessGrant) -> SourceDirectory:
    directory = volumes.existing_directory(configuration, permitted.machine)
    if directory is None:
        raise NotInHistory(f"storage {configuration.identity.name} has nothing of this machine")
    place = SourceDirectory(directory, permitted.source)
    if not (fs.is_directory(place.snapshots_dir) or fs.is_directory(place.working_tree)):
        raise NotInHistory(f"storage {configuration.identity.name} has nothing of source {permitted.source}")
    return place
