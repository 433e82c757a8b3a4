"""``turku-storage adopt``: trees of rsnapshot or rsync become history of a machine's source."""

import argparse
import logging
from datetime import datetime
from pathlib import Path

from turku.core.cli import listing
from turku.core.cli import options as common
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command
from turku.core.clock import Clock
from turku.core.units import count_of
from turku.errors import InvalidValue, NotInHistory, UsageError
from turku.policy import machine_choice, names
from turku.policy.machine_choice import MACHINE_HELP
from turku.policy.timing import moments
from turku.storage import catalog
from turku.storage.backup import adoption
from turku.storage.backup.adoption import FoundTree
from turku.storage.commands.setup import configured
from turku.storage.config.model import StorageConfig
from turku.storage.disk import history, machine_links, volumes
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.disk.source_lookup import locked

_LOG = logging.getLogger(__name__)


def adopt(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    """Show the trees, and adopt those that are not history yet, oldest first."""
    zone = configuration.state.timezone
    source = names.source_name(options.source)
    uuid = _uuid(configuration, options.machine)
    given = None if options.date is None else moments.parse(options.date, now=clock.now(), zone=zone)
    directories = [Path(each).resolve() for each in options.directories]
    found = adoption.find_trees(directories, options.inside, given, zone)
    existing = volumes.existing_directory(configuration, uuid)
    for each in found:
        adoption.refuse(each, configuration, now=clock.now())
    known = {} if existing is None else adoption.known_trees(SourceDirectory(existing, source), found, zone)
    _show(found, known, configuration, say)
    new = [each for each in found if each not in known]
    if options.dry_run or not new:
        say(f"{count_of(len(new), 'tree')} to adopt as history of {source} of machine {uuid}.")
        return 0
    place = SourceDirectory(volumes.machine_directory(configuration, uuid), source)
    with locked(place):
        for each in new:
            name = adoption.adopt(place, each, configuration, copies=options.copy)
            say(f"{each.path} is {name}")
        adoption.point_to_latest(place, configuration, now=clock.now())
    catalog.update(place, zone=zone, go_on=lambda: True)
    count = len(history.stored_snapshots(place, zone))
    say(f"{source} of machine {uuid} has {count_of(count, 'snapshot')}. The next backup is incremental.")
    for directory in sorted({each for each in directories if not options.copy and adoption.is_open_to_others(each)}):
        _LOG.warning(
            "%s: other users of this host can enter it, and whoever owns a file there can change it in the history: "
            "chmod 700 it, or remove it",
            directory,
        )
    return 0


def _uuid(configuration: StorageConfig, machine: str) -> str:
    """Return the UUID of the machine, which need not have a backup yet. Raises NotInHistory, UsageError."""
    try:
        return names.machine_uuid(machine)
    except InvalidValue:
        pass
    known = machine_links.known_names(configuration.state)
    found = machine_choice.chosen(machine, known)
    if not found:
        raise NotInHistory(
            f"{machine} is not a machine of this storage",
            hint="register it at the coordinator and run turku-storage-update-config, or name it by its UUID",
        )
    if len(found) > 1:
        raise UsageError(f"{len(found)} machines fit {machine}: {', '.join(found)}", hint="name one by its UUID")
    return found[0]


def _show(found: list[FoundTree], known: dict[FoundTree, str], configuration: StorageConfig, say: Say) -> None:
    def date(moment: datetime) -> str:
        return f"{moment.astimezone(configuration.state.timezone):%Y-%m-%d %H:%M:%S}"

    rows = (
        (str(each.path), date(each.moment), each.date_origin, f"is {known[each]}" if each in known else "new")
        for each in found
    )
    listing.show(("tree", "date", "date is from", "history"), rows, say)


COMMANDS = (
    Command(
        "adopt",
        "Make trees of rsnapshot or rsync the history of a machine's source.",
        configured(adopt),
        (
            (
                "Preview the trees that rsnapshot made of a host:",
                "{prog} /srv/rs --inside web/etc --machine web --source etc -n",
            ),
            (
                "Adopt directories that rsync made, one per day:",
                "{prog} /srv/rsync/web/2026* --machine web --source root",
            ),
            (
                "Adopt one tree of another file system:",
                "{prog} /mnt/a --copy --machine web --source a --date 2026-11-01",
            ),
        ),
        (
            Argument(
                "directories",
                nargs="+",
                metavar="DIRECTORY",
                help="A tree, or a directory in which rsnapshot keeps daily.0, weekly.0 and so on.",
            ),
            Argument("--machine", required=True, metavar="MACHINE", help=f"The machine: {MACHINE_HELP}."),
            Argument("--source", required=True, metavar="SOURCE", help="Its source, which need not have a backup yet."),
            Argument(
                "--inside",
                default="",
                metavar="PATH",
                help="Path of the source's content in each directory, as HOST/etc in those of rsnapshot.",
            ),
            Argument(
                "--date",
                metavar="TIME",
                help="Date of a single tree (default: the date in its name, or else the time of the directory).",
            ),
            Argument(
                "--copy",
                action="store_true",
                help="Copy the files by rsync, from another file system (default: hard links, which take no space).",
            ),
            common.DRY_RUN,
        ),
        "The original stays as it is. Each tree becomes a snapshot at once or not at all. The same command finishes a "
        "run that was interrupted.",
        {75: "The source is being backed up."},
    ),
)
