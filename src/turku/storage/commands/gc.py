"""``turku-storage gc``: what left history or the trash is removed from the disk."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from turku.errors import LockHeld

if TYPE_CHECKING:
    from turku.core.clock import Clock
    from turku.storage.config.configuration import StorageConfig
    from turku.storage.disk.source_directory import SourceDirectory

BACKGROUND_SECONDS = 600.0
"""How long one run in the background goes on; a timer starts the next one."""
_AT_WORK_SECONDS = 3600.0
_WORK_SECONDS = 0.1
_REST_SECONDS = 0.1
_LOG = logging.getLogger(__name__)

Say = Callable[[str], None]


def add(parser: argparse.ArgumentParser, add_directory: Callable[[argparse.ArgumentParser], None]) -> None:
    """Give the parser its options."""
    add_directory(parser)
    parser.add_argument(
        "--background",
        action="store_true",
        help=f"gently, for at most {BACKGROUND_SECONDS:g} seconds, and not at all while another such run goes on",
    )


def run(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    """The exit code: 0, also where something is left for the next run."""
    from turku.core import lock

    try:
        with lock.exclusive(configuration.lock_dir, "gc"):
            _remove_all(configuration, clock, say, is_gentle=options.background)
    except LockHeld:
        if not options.background:
            raise
        _LOG.debug("another garbage collection is running")
    return 0


def _remove_all(configuration: StorageConfig, clock: Clock, say: Say, *, is_gentle: bool) -> None:
    from turku.core.priority import be_gentle
    from turku.storage.disk import deletion
    from turku.storage.disk.source_lookup import find_sources

    go_on: deletion.GoOn = lambda: True  # noqa: E731  (one of two)
    if is_gentle:
        be_gentle()
        go_on = _TimeSlice(clock)
    count = left = 0
    for place in find_sources(configuration):
        if go_on():
            _empty_trash(place, configuration, clock)
            count += deletion.collect(place, go_on)
            _update_catalog(place, configuration, go_on)
            _remove_temporary_files(place, clock)
        left += len(deletion.marked(place))
    if count or left or not is_gentle:
        say(f"{count} tree{'' if count == 1 else 's'} removed" + (f", {left} left" if left else ""))


def _empty_trash(place: SourceDirectory, configuration: StorageConfig, clock: Clock) -> None:
    from turku.storage.disk import history, trash
    from turku.storage.disk.source_lookup import locked

    removed_until = clock.now() - timedelta(days=configuration.trash_days)
    if not any(each.trashed <= removed_until for each in trash.trashed_snapshots(place)):
        return
    try:
        with locked(place):
            # As after a backup: nothing goes while a suspicious snapshot waits to be judged.
            if not history.unjudged(place, configuration.zone):
                trash.empty(place, removed_until=removed_until)
    except LockHeld:
        _LOG.debug("%s is being backed up; its trash is emptied after it", place.source)


def _remove_temporary_files(place: SourceDirectory, clock: Clock) -> None:
    """Remove what was being written when a run was killed; nobody is at work any more on what is an hour old."""
    from turku.storage.catalog import database
    from turku.storage.fs import tree as fs

    until = clock.now().timestamp() - _AT_WORK_SECONDS
    machine = place.machine_dir
    for directory in (machine.parent, machine, database.file_of(place).parent):
        try:
            fs.remove_temporary_files(directory, until=until)
        except OSError as error:
            _LOG.warning("%s: cannot clean up: %s", directory, error.strerror or error)


def _update_catalog(place: SourceDirectory, configuration: StorageConfig, go_on: Callable[[], bool]) -> None:
    """Read what no backup had the time to read, such as an older storage's history; one tree after the other."""
    from turku.errors import CatalogUnusable
    from turku.storage import catalog

    try:
        catalog.update(place, zone=configuration.zone, go_on=go_on)
    except CatalogUnusable as error:
        _LOG.warning("%s: %s", place.source, error.message)


class _TimeSlice:
    """A time slice of a background run: it rests as long as it works, and ends after ``BACKGROUND_SECONDS``."""

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
