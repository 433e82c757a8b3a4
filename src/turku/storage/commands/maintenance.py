"""``turku-storage gc``, ``catalog`` and ``accept-volume``: care for volumes and catalogs."""

import argparse
import logging
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from turku.core import lock
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command, CommandGroup
from turku.core.clock import Clock
from turku.core.kernel.process import lower_priority
from turku.core.units import count_of
from turku.errors import CatalogUnusable, LockHeld
from turku.storage import catalog
from turku.storage.catalog import database
from turku.storage.commands import former
from turku.storage.commands.setup import SELECTION, configured, selected
from turku.storage.config.model import StorageConfig, StorageState
from turku.storage.disk import deletion, history, trash, volume_marks
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.disk.source_lookup import find_sources, locked
from turku.storage.fs import tree as fs

BACKGROUND_SECONDS = 600.0
"""The length of a run in the background. A timer starts the next one."""
_AT_WORK_SECONDS = 3600.0
_WORK_SECONDS = 0.1
_REST_SECONDS = 0.1
_LOG = logging.getLogger(__name__)


def collect_garbage(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    """Remove what there is time for. What is left is for the next run."""
    try:
        with lock.exclusive(configuration.state.lock_dir, "gc"):
            _remove_all(configuration, clock, say, is_gentle=options.background)
    except LockHeld:
        if not options.background:
            raise
        _LOG.debug("another garbage collection is running")
    return 0


def _remove_all(configuration: StorageConfig, clock: Clock, say: Say, *, is_gentle: bool) -> None:
    go_on: deletion.GoOn = lambda: True  # noqa: E731  (the other choice is an object)
    if is_gentle:
        lower_priority()
        go_on = _TimeSlice(clock)
    former.carry_out(configuration, clock)
    count = left = held = empty = 0
    for place in find_sources(configuration):
        if go_on():
            _empty_trash(place, configuration, clock)
            count += deletion.collect(place, go_on)
            _update_catalog(place, configuration.state, go_on)
            _remove_temporary_files(place, clock)
            empty += _remove_without_data(place)
        left += len(deletion.marked(place))
        held += len(trash.trashed_snapshots(place))
    if empty:
        say(f"the empty directories of {count_of(empty, 'source')} removed, of which nothing was ever stored")
    if count or left:
        say(f"{count_of(count, 'tree')} removed" + (f", {left} left" if left else ""))
    elif not empty and not is_gentle:
        say(
            "nothing to remove"
            + (f"; the trash holds {count_of(held, 'snapshot')} ('turku-storage trash list')" if held else "")
        )


def _empty_trash(place: SourceDirectory, configuration: StorageConfig, clock: Clock) -> None:
    removed_until = clock.now() - timedelta(days=configuration.retention.trash_days)
    if not any(each.trashed <= removed_until for each in trash.trashed_snapshots(place)):
        return
    try:
        with locked(place):
            # As after a backup: nothing goes while a quarantined snapshot waits for a decision.
            if not history.awaiting_review(place, configuration.state.timezone):
                trash.empty(place, removed_until=removed_until)
    except LockHeld:
        _LOG.debug("%s is being backed up; its trash is emptied after it", place.source)


def _remove_without_data(place: SourceDirectory) -> bool:
    """Remove the directories that a source left whose first backup never came about."""
    if not deletion.is_without_data(place):
        return False
    try:
        with locked(place):
            return deletion.remove_without_data(place)
    except LockHeld:
        return False
    except OSError as error:
        _LOG.warning("%s: cannot remove the empty directory: %s", place.snapshots_dir, error.strerror or error)
        return False


def _remove_temporary_files(place: SourceDirectory, clock: Clock) -> None:
    """Remove what a killed run was writing. No run works longer than an hour on such a file."""
    until = clock.now().timestamp() - _AT_WORK_SECONDS
    machine = place.machine_dir
    for directory in (machine.parent, machine, database.file_of(place).parent):
        try:
            fs.remove_temporary_files(directory, written_until_unix_seconds=until)
        except OSError as error:
            _LOG.warning("%s: cannot clean up: %s", directory, error.strerror or error)


def _update_catalog(place: SourceDirectory, configuration: StorageState, go_on: Callable[[], bool]) -> None:
    """Read the snapshots that no backup had the time to read, such as an older storage's, one after the other."""
    try:
        catalog.update(place, zone=configuration.timezone, go_on=go_on)
    except CatalogUnusable as error:
        _LOG.warning("%s: %s", place.source, error.message)


class _TimeSlice:
    """A limit in time that rests for as long as the work took."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._end = clock.monotonic_seconds() + BACKGROUND_SECONDS
        self._rested = clock.monotonic_seconds()

    def __call__(self) -> bool:
        now = self._clock.monotonic_seconds()
        if now - self._rested > _WORK_SECONDS:
            self._clock.sleep(_REST_SECONDS)
            self._rested = self._clock.monotonic_seconds()
        return now < self._end


def update_catalogs(
    options: argparse.Namespace, configuration: StorageConfig, _clock: Clock, say: Say, *, rebuilds: bool
) -> int:
    """Open each catalog, which brings it up to date, and rebuild it first where that is asked."""
    for place in selected(options, configuration):
        if rebuilds:
            with locked(place):
                catalog.rebuild(place, zone=configuration.state.timezone)
        with catalog.open_catalog(place, zone=configuration.state.timezone) as opened:
            count = len(opened.snapshots())
        say(f"{place.machine_dir.name}  {place.source}: {count_of(count, 'snapshot')}")
    return 0


def accept_volume(options: argparse.Namespace, configuration: StorageConfig, _clock: Clock, say: Say) -> int:
    """Write the volume's mark anew."""
    path = volume_marks.accept(configuration, options.volume)
    say(f"{path} is volume {options.volume} from now on")
    return 0


COMMANDS = (
    Command(
        "gc",
        "Free the space of what left the history, and of what was in the trash for trash_days.",
        configured(collect_garbage, needs_all_volumes=True),
        (
            ("Free all space that can be freed now:", "{prog}"),
            ("Free some of it, as the timer does:", "{prog} --background"),
            ("Empty the trash, then free its space:", "turku-storage trash empty --yes && {prog}"),
        ),
        (
            Argument(
                "--background",
                action="store_true",
                help=f"Run at low priority, for at most {BACKGROUND_SECONDS:g} seconds, and only if no other run is "
                "active. The timer does this.",
            ),
        ),
        "Snapshots that retention keeps are not touched: see turku-storage retention.",
        {75: "Another run is active."},
    ),
    CommandGroup(
        "catalog",
        "Update or rebuild the catalogs, which know what each snapshot contains.",
        (
            Command(
                "update",
                "Read snapshots that are in no catalog yet, such as those of an older storage.",
                configured(partial(update_catalogs, rebuilds=False), needs_all_volumes=True),
                (
                    ("Update all catalogs:", "{prog}"),
                    ("Update those of one machine:", "{prog} --machine web/0"),
                    ("Update the catalog of one source:", "{prog} --machine web/0 --source etc"),
                ),
                SELECTION,
            ),
            Command(
                "rebuild",
                "Read every snapshot again. The checksums, and what was verified, are lost.",
                configured(partial(update_catalogs, rebuilds=True), needs_all_volumes=True),
                (
                    ("Rebuild the catalog of one source:", "{prog} --machine web/0 --source etc"),
                    ("Rebuild those of one machine:", "{prog} --machine web/0"),
                    ("Rebuild all, then read every file for its checksum:", "{prog} && turku-storage verify"),
                ),
                SELECTION,
            ),
        ),
        (
            ("Update all catalogs:", "{prog} update"),
            ("Update those of one machine:", "{prog} update --machine web/0"),
            ("Rebuild the catalog of one source:", "{prog} rebuild --machine web/0 --source etc"),
        ),
    ),
    Command(
        "accept-volume",
        "Accept the disk that is mounted at a volume's path as that volume.",
        configured(accept_volume),
        (
            ("Accept a disk that replaces the former one:", "{prog} data"),
            ("Accept it only if something is mounted there:", "mountpoint -q /srv/backups && {prog} data"),
            ("Accept it, then check the storage:", "{prog} data && turku-storage check"),
        ),
        (Argument("volume", metavar="VOLUME", help="Name of the volume in the configuration."),),
    ),
)
