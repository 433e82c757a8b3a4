"""The part of a source's history that a session may see. Nothing else exists for the session.

The view is made of the grant once, at the beginning of a session: the source, and for an approved restore its one
snapshot and its paths. Every request of a machine, and every message to it, goes through the view.
``tests/integration/storage/test_history_view.py`` checks that ``browse`` and ``plan`` use it.
"""

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
"""The number of entries that a remark names."""
_GONE = "the requested snapshot is not on this storage (mistyped, or removed meanwhile)"
_LOG = logging.getLogger(__name__)


class HistoryView:
    """The snapshots and paths of one source that exist for one session."""

    def __init__(self, configuration: StorageConfig, grant: AccessGrant, *, clock: Clock) -> None:
        """Open the view of a grant.

        Raises NotInHistory if the machine, the source or the approved snapshot is not kept here, and NoVolume.
        """
        self._configuration = configuration
        self._clock = clock
        self._approved = grant.snapshot
        self._is_whole = not grant.paths and grant.snapshot is None
        self._place = _place(configuration, grant)
        snapshots = history.stored_snapshots(self._place, configuration.state.timezone)
        # The scope until it is known which snapshot is meant.
        self.scope = Scope(None, grant.paths)
        name = self._granted_name(grant, snapshots)
        self.scope = Scope(name, grant.paths)
        self._snapshots = tuple(each for each in snapshots if self.scope.has_snapshot(each.name))
        if name not in (None, CURRENT) and not self._snapshots:
            raise NotInHistory(_GONE, hint="request a restore of another one")

    def snapshots(self) -> Iterator[SnapshotRow]:
        """Yield a row for each snapshot, oldest first."""
        # Statistics cover all paths.
        return history_rows.snapshot_rows(
            self._place,
            self._snapshots,
            self._configuration.state.timezone,
            now=self._clock.now(),
            has_stats=not self.scope.paths,
        )

    def choose(self, choice: SnapshotChoice) -> SnapshotTree:
        """Return the chosen tree. Raises NotInHistory, and InvalidValue for a time that is not understood."""
        if self.scope.snapshot is not None:
            if choice not in (self._approved, SnapshotChoice(self.scope.snapshot)):
                raise NotInHistory(
                    "the access grant is for another snapshot of this source", hint=f"it is for {self.scope.snapshot}"
                )
            choice = SnapshotChoice(self.scope.snapshot)
        return self._chosen(choice, self._snapshots)

    @contextmanager
    def catalog(self) -> Iterator[Catalog]:
        """Open the catalog, with the scope of the view, for the length of the block. Raises CatalogUnusable."""
        try:
            opened = catalog.open_catalog(self._place, zone=self._configuration.state.timezone, scope=self.scope)
        except CatalogUnusable as error:
            if self.scope == catalog.WHOLE:
                raise
            # The reason may name what was being read.
            _LOG.warning("%s: %s", self._place.source, error.message)
            raise CatalogUnusable("the catalog cannot be used now, for a reason in the storage's log") from None
        with opened:
            yield opened

    def _granted_name(self, grant: AccessGrant, snapshots: Sequence[StoredSnapshot]) -> str | None:
        """Return the name of the view's only snapshot, or None if all are in it."""
        if grant.snapshot is None or grant.resolved is not None:
            return grant.resolved
        if grant.snapshot.name not in (None, LATEST, CURRENT, *(each.name for each in snapshots)):
            # A part of a name is enough for a person, and not for a grant.
            raise NotInHistory(_GONE)
        try:
            name = self._chosen(grant.snapshot, snapshots).name
        except NotInHistory:
            # The reason would name other snapshots.
            raise NotInHistory(_GONE) from None
        # A full name always means the same snapshot.
        return name if name == grant.snapshot.name else access_grants.fix_snapshot(self._configuration, grant, name)

    def _unfinished(self, snapshots: Sequence[StoredSnapshot]) -> SnapshotTree:
        """Return the tree of the unfinished runs of a source without a backup. Raises NotInHistory."""
        place = self._place
        if snapshots or place.has_finished_tree():
            raise NotInHistory(
                f"source {place.source} has finished backups",
                hint="a later unfinished run is not part of them, so leave --unfinished out",
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
        zone = self._configuration.state.timezone
        chosen = by_name[catalog.choose(snapshots, name=choice.name, at=choice.at, now=self._clock.now(), zone=zone)]
        noted = snapshot_notes.read(place, chosen.name)
        remarks = self._remarks(chosen, noted, snapshots, is_latest=choice.name in (None, LATEST) and choice.at is None)
        return SnapshotTree(place, chosen.name, chosen.path, chosen.moment, noted, remarks)

    def _remarks(
        self, chosen: StoredSnapshot, noted: Notes, snapshots: Sequence[StoredSnapshot], *, is_latest: bool
    ) -> tuple[str, ...]:
        now = self._clock.now()
        found = []
        if not noted.is_good:
            # The findings name files, and mention other snapshots.
            findings = f": {'; '.join(noted.findings)}" if self._is_whole else ""
            state = "was rejected" if noted.review is Review.REJECTED else "is quarantined, and nobody has reviewed it"
            found.append(f"{chosen.name} {state}{findings}{self._last_good(chosen, snapshots)}")
        if chosen.is_date_in_doubt(now):
            found.append(f"the date of {chosen.name} is in doubt, as the clock of the storage was wrong")
        elif is_latest and (doubtful := [each for each in snapshots if each.is_date_in_doubt(now)]):
            count = "1 snapshot does" if len(doubtful) == 1 else f"{len(doubtful)} snapshots do"
            found.append(
                f"{count} not count as the latest, as dates were in the future: the last one is {doubtful[-1].name}"
            )
        return (*found, *self._lost(chosen, noted.incomplete))

    def _lost(self, chosen: StoredSnapshot, lost: Incompleteness) -> Iterator[str]:
        """Yield remarks about files that could not be read, as far as the view allows."""
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


def _place(configuration: StorageConfig, grant: AccessGrant) -> SourceDirectory:
    directory = volumes.existing_directory(configuration, grant.machine)
    if directory is None:
        raise NotInHistory(f"storage {configuration.identity.name} has nothing of this machine")
    place = SourceDirectory(directory, grant.source)
    if not (fs.is_directory(place.snapshots_dir) or fs.is_directory(place.working_tree)):
        raise NotInHistory(f"storage {configuration.identity.name} has nothing of source {grant.source}")
    return place
