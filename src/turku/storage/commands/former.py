"""``turku-storage former list|remove``: history of machines that were moved or removed, and its end."""

import argparse
import logging
from datetime import UTC, datetime

from turku.core.cli import listing
from turku.core.cli import options as common
from turku.core.cli.listing import Say
from turku.core.cli.output import json_text
from turku.core.cli.program import Argument, Command, CommandGroup
from turku.core.clock import Clock
from turku.core.units import count_of
from turku.errors import LockHeld, NotInHistory, TurkuError, UsageError
from turku.policy import machine_choice
from turku.policy.machine_choice import MACHINE_HELP
from turku.storage import catalog
from turku.storage.catalog import database
from turku.storage.commands.setup import configured
from turku.storage.config.model import StorageConfig
from turku.storage.disk import deletion, former_machines, history, machine_links, retention_run, trash, volumes
from turku.storage.disk.former_machines import FormerMachine
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.disk.source_lookup import locked, places_of
from turku.storage.fs import tree as fs
from turku.storage.fs.remove import remove_tree

_LOG = logging.getLogger(__name__)


def carry_out(configuration: StorageConfig, clock: Clock) -> None:
    """Move the history of former machines to the trash where its time has come, and remove what has nothing left.

    A failure is logged, and the next run tries again.
    """
    for uuid, machine in former_machines.read(configuration.state).items():
        if not machine.is_due(clock.now()):
            continue
        try:
            directory = volumes.existing_directory(configuration, uuid)
            if directory is not None:
                places = list(places_of(directory))
                for place in places:
                    _to_trash(place, machine, configuration, now=clock.now())
                _remove_if_empty(configuration, machine, places, uuid)
        except (TurkuError, OSError) as error:
            _LOG.warning("history of %s (%s) is left as it is: %s", machine.name, uuid, error)


def _to_trash(place: SourceDirectory, machine: FormerMachine, configuration: StorageConfig, *, now: datetime) -> None:
    try:
        with locked(place):
            if history.awaiting_review(place, configuration.state.timezone) and not machine.is_released:
                return
            names = [each.name for each in history.stored_snapshots(place, configuration.state.timezone)]
            if not machine.is_released:
                kept = retention_run.kept_of_former_machine(place, configuration, now=now)
                names = [name for name in names if name not in kept]
            if names:
                retention_run.remove(place, names, configuration.retention, now=now)
                catalog.forget(place, zone=configuration.state.timezone)
                trash.remove_stray_records(place)
    except LockHeld:
        _LOG.debug("%s is in use", place.source)


def _remove_if_empty(
    configuration: StorageConfig, machine: FormerMachine, places: list[SourceDirectory], uuid: str
) -> None:
    """Remove directory, catalogs and links of a machine that has neither snapshots nor trash."""
    directory = volumes.existing_directory(configuration, uuid)
    if directory is None:
        return
    for place in places:
        deletion.collect(place)
        if (
            history.stored_snapshots(place, configuration.state.timezone)
            or trash.trashed_snapshots(place)
            or deletion.marked(place)
        ):
            return
    trees = [name for name in fs.names(directory) if not name.startswith(".") and not name.endswith(".snapshots")]
    if trees and not machine.is_released:
        # The only copy of a source without history, for which there is no trash.
        return
    remove_tree(directory.parent / database.DIRECTORY / uuid)
    remove_tree(directory)
    machine_links.remove_link(configuration.state, uuid)
    _LOG.info("nothing is left of the history of %s (%s)", machine.name, uuid)


def _list(_options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    now, zone = clock.now(), configuration.state.timezone
    rows = []
    for uuid, machine in former_machines.read(configuration.state).items():
        directory = volumes.existing_directory(configuration, uuid)
        places = [] if directory is None else list(places_of(directory))
        snapshots = sum(len(history.stored_snapshots(place, zone)) for place in places)
        trashed = sum(len(trash.trashed_snapshots(place)) for place in places)
        rows.append((uuid, machine, snapshots, trashed))
    if _options.json:
        say(
            json_text(
                [
                    {
                        "machine": uuid,
                        "name": machine.name,
                        "moved": machine.moved,
                        "keep_until": _iso(machine.keep_until),
                        "is_due": machine.is_due(now),
                        "is_released": machine.is_released,
                        "snapshots": snapshots,
                        "in_trash": trashed,
                    }
                    for uuid, machine, snapshots, trashed in rows
                ],
                indent=4,
            )
        )
        return 0
    table = [
        (
            machine.name or uuid,
            "moved" if machine.moved else "removed",
            _fate(machine, configuration, now),
            str(snapshots),
            str(trashed),
            uuid,
        )
        for uuid, machine, snapshots, trashed in rows
    ]
    headings = ("machine", "was", "history", "snapshots", "trash", "uuid")
    listing.show(
        headings, table, say, right=("snapshots", "trash"), drop=("uuid",), empty="no machine was moved or removed"
    )
    return 0


def _iso(unix_seconds: float | None) -> str | None:
    return None if unix_seconds is None else datetime.fromtimestamp(unix_seconds, UTC).isoformat()


def _fate(machine: FormerMachine, configuration: StorageConfig, now: datetime) -> str:
    if machine.is_released:
        return "released"
    if machine.keep_until is None:
        return "kept"
    if not machine.is_due(now):
        until = datetime.fromtimestamp(machine.keep_until, configuration.state.timezone)
        return f"kept until {until:%Y-%m-%d}"
    return "to the trash" if configuration.retention.accept_removals else "newest waits for 'former remove'"


def _remove(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    known = former_machines.read(configuration.state)
    found = machine_choice.chosen(options.machine, {uuid: (each.name,) for uuid, each in known.items()})
    if len(found) != 1:
        problem = "more than one machine fits" if found else "no machine that was moved or removed fits"
        raise NotInHistory(f"{problem} {options.machine}", hint="'turku-storage former list' shows them")
    [uuid] = found
    name = known[uuid].name or uuid
    if not options.yes:
        raise UsageError(
            f"the whole history of {name} ({uuid}) would end, also what its rules and the storage's floor keep",
            hint="--yes says that it is meant",
        )
    former_machines.release(configuration.state, uuid)
    carry_out(configuration, clock)
    days = configuration.retention.trash_days
    say(f"The history of {name} ({uuid}) has ended.")
    say(f"It is in the trash for {count_of(round(days), 'day')}." if days else "There is no trash, so it is deleted.")
    return 0


COMMANDS = (
    CommandGroup(
        "former",
        "List the history of machines that were moved or removed, or let it go.",
        (
            Command(
                "list",
                "Show the machines that were moved or removed at the coordinator, and what is kept of them here.",
                configured(_list),
                (
                    ("Show them:", "{prog}"),
                    ("Print their UUIDs:", "{prog} --json | jq -r '.[].machine'"),
                    ("Show the snapshots of one:", "{prog} && turku-storage snapshots --machine web/0"),
                ),
                (common.JSON,),
            ),
            Command(
                "remove",
                "Move the whole history of such a machine to the trash, the newest snapshots included.",
                configured(_remove),
                (
                    ("Let the history of a machine go:", "{prog} web/0 --yes"),
                    ("Name it by the first digits of its UUID:", "{prog} 9bef --yes"),
                    ("See what is in the trash then:", "{prog} 9bef --yes && turku-storage trash list"),
                ),
                (Argument("machine", metavar="MACHINE", help=f"Machine: {MACHINE_HELP}."), common.YES),
                "The trash is emptied after trash_days. A tree without history has no trash and is deleted.",
            ),
        ),
        (
            ("Show what is kept of machines that left:", "{prog} list"),
            ("Let the history of one go:", "{prog} remove web/0 --yes"),
            ("Show the trash afterwards:", "{prog} remove web/0 --yes && turku-storage trash list"),
        ),
        "A machine that was removed at the coordinator leaves its history here. See accept_removals.",
    ),
)
