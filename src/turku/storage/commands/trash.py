"""``turku-storage trash list|restore|empty``: show what retention removed, bring it back, or remove it for good."""

import argparse
from datetime import timedelta

from turku.core.cli import listing
from turku.core.cli import options as common
from turku.core.cli.arguments import number
from turku.core.cli.listing import Say
from turku.core.cli.output import json_text
from turku.core.cli.program import Argument, Command, CommandGroup
from turku.core.clock import Clock
from turku.core.units import count_of
from turku.errors import NotInHistory, UsageError
from turku.policy import snapshot_mode
from turku.storage.commands.setup import SELECTION, configured, known_columns, machine_names, require_volumes, selected
from turku.storage.config.model import StorageConfig
from turku.storage.disk import trash
from turku.storage.disk.source_lookup import locked
from turku.storage.snapshots import MODES


def _list(options: argparse.Namespace, configuration: StorageConfig, _clock: Clock, say: Say) -> int:
    kept_for = timedelta(days=configuration.retention.trash_days)
    zone, machine_name = configuration.state.timezone, machine_names(configuration)
    found = [
        (place.machine_dir.name, place.source, each.name, each.trashed, each.trashed + kept_for)
        for place in selected(options, configuration)
        for each in trash.trashed_snapshots(place)
    ]
    if options.json:
        keys = ("machine", "source", "snapshot", "removed", "kept_until")
        times = ((*names, removed.isoformat(), until.isoformat()) for *names, removed, until in found)
        say(json_text([dict(zip(keys, row, strict=True)) for row in times], indent=4))
        return 0
    if not found:
        require_volumes(options, configuration)
        say("the trash is empty")
        return 0
    rows = (
        (machine_name(uuid), *names, *(f"{time.astimezone(zone):%Y-%m-%d %H:%M}" for time in (removed, until)))
        for uuid, *names, removed, until in found
    )
    headings = ("machine", "source", "snapshot", "removed", "kept until")
    listing.show(headings, rows, say, drop=("source",), known=known_columns(options))
    return 0


def _restore(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    found = [
        trashed
        for place in selected(options, configuration)
        for trashed in trash.trashed_snapshots(place)
        if trashed.name == options.snapshot
    ]
    if not found:
        require_volumes(options, configuration)
        raise NotInHistory(f"{options.snapshot} is not in the trash", hint="'turku-storage trash list' shows what is")
    if len({each.place for each in found}) > 1:
        raise UsageError(
            f"{options.snapshot} is in the trash of several sources", hint="say which: --machine and --source"
        )
    trashed = found[-1]
    with locked(trashed.place):
        held_until = trash.restore(trashed, now=clock.now(), trash_days=configuration.retention.trash_days)
    say(
        f"{trashed.name} of {trashed.place.source} is in the history again. Retention does not remove it before "
        f"{held_until.astimezone(configuration.state.timezone):%Y-%m-%d %H:%M}. "
        "To keep it longer, put 'save' into its name."
    )
    return 0


def _empty(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    if options.older_than is None and not options.yes:
        raise UsageError(
            "what is removed from the trash cannot be brought back",
            hint="--yes removes all of it, --older-than DAYS what was removed longer ago",
        )
    removed_until = clock.now() - timedelta(days=options.older_than or 0)
    count = 0
    for place in selected(options, configuration):
        with locked(place):
            gone = trash.empty(place, removed_until=removed_until)
            if gone:
                MODES[snapshot_mode.DEFAULT](place).collect()
            count += len(gone)
            for each in gone:
                say(f"removed {each.place.machine_dir.name}  {each.place.source}  {each.name}")
    say(f"{count_of(count, 'snapshot')} removed")
    return 0


COMMANDS = (
    CommandGroup(
        "trash",
        "List, restore or remove the snapshots that retention removed.",
        (
            Command(
                "list",
                "Show what is in the trash, and until when.",
                configured(_list, needs_all_volumes=True),
                (
                    ("Show the trash of all sources:", "{prog}"),
                    ("Show the trash of one machine:", "{prog} --machine web/0"),
                    ("Print only the names:", "{prog} --json | jq -r '.[].snapshot'"),
                ),
                (*SELECTION, common.JSON),
            ),
            Command(
                "restore",
                "Bring a snapshot back into the history.",
                configured(_restore),
                (
                    ("Bring a snapshot back:", "{prog} etc_20261101-020000_1a2b"),
                    (
                        "Choose the machine, if several have that name:",
                        "{prog} etc_20261101-020000_1a2b --machine web/0",
                    ),
                    ("Choose the source, if several have that name:", "{prog} 1424400000 --machine web/0 --source etc"),
                ),
                (
                    Argument("snapshot", metavar="SNAPSHOT", help="Name of the snapshot, as 'trash list' shows it."),
                    *SELECTION,
                ),
                "Retention does not remove it again for trash_days, at least 7 days.",
            ),
            Command(
                "empty",
                "Remove what is in the trash for good.",
                configured(_empty, needs_all_volumes=True),
                (
                    ("Remove what has been there for three days:", "{prog} --older-than 3"),
                    ("Remove all of it:", "{prog} --yes"),
                    ("Remove what one source has there:", "{prog} --yes --machine web/0 --source etc"),
                ),
                (
                    *SELECTION,
                    Argument(
                        "--older-than",
                        type=number("days", 36_500),
                        metavar="DAYS",
                        help="Only snapshots that were removed longer ago than this many days.",
                    ),
                    common.YES,
                ),
                "Without --older-than it removes all of it, and needs --yes.",
            ),
        ),
        (
            ("Show what is in the trash:", "{prog} list"),
            ("Bring a snapshot back:", "{prog} restore etc_20261101-020000_1a2b"),
            ("Remove what has been there for three days:", "{prog} empty --older-than 3"),
        ),
    ),
)
