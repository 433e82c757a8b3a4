"""``turku-storage trash list|restore|empty``: what retention removed, and bringing it back."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from turku.core.cli.output import json_text
from turku.errors import UsageError
from turku.policy.machine_choice import MACHINE_HELP

if TYPE_CHECKING:
    from turku.core.clock import Clock
    from turku.storage.config.configuration import StorageConfig

Say = Callable[[str], None]


def add(parser: argparse.ArgumentParser, add_directory: Callable[[argparse.ArgumentParser], None]) -> None:
    """Give the parser its subcommands."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="show what is in the trash, and until when")
    listing.add_argument("--json", action="store_true", help="as a JSON array, for programs")
    restoring = actions.add_parser("restore", help="bring a snapshot back into history")
    restoring.add_argument("snapshot", metavar="SNAPSHOT", help="its name, as 'list' shows it")
    emptying = actions.add_parser("empty", help="remove what is in the trash for good")
    emptying.add_argument(
        "--older-than", type=_days, metavar="DAYS", help="only what was removed longer ago than this many days"
    )
    emptying.add_argument("--yes", action="store_true", help="all of it")
    for action in (listing, restoring, emptying):
        add_directory(action)
        add_source(action)


def add_source(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Give the parser ``--machine`` and ``--source``."""
    parser.add_argument("--machine", required=required, metavar="MACHINE", help=f"of this machine: {MACHINE_HELP}")
    parser.add_argument("--source", required=required, metavar="SOURCE", help="of this source")


def _days(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 36500:
        raise argparse.ArgumentTypeError(f"{text}: days from 0 to 36500")
    return value


def run(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    """The exit code of the action."""
    return {"list": _list, "restore": _restore, "empty": _empty}[options.action](options, configuration, clock, say)


def _list(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:  # noqa: ARG001
    from turku.storage.disk import trash
    from turku.storage.disk.source_lookup import find_sources

    found = [
        {
            "machine": place.machine_dir.name,
            "source": place.source,
            "snapshot": trashed.name,
            "removed": trashed.trashed.isoformat(),
            "kept_until": (trashed.trashed + timedelta(days=configuration.trash_days)).isoformat(),
        }
        for place in find_sources(configuration, machine=options.machine, source=options.source)
        for trashed in trash.trashed_snapshots(place)
    ]
    if options.json:
        say(json_text(found, indent=4))
        return 0
    for each in found:
        say(
            f"{each['machine']}  {each['source']}  {each['snapshot']}  removed {each['removed']}, "
            f"kept until {each['kept_until']}"
        )
    if not found:
        say("the trash is empty")
    return 0


def _restore(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    from turku.storage.disk import trash
    from turku.storage.disk.source_lookup import find_sources, locked

    found = [
        trashed
        for place in find_sources(configuration, machine=options.machine, source=options.source)
        for trashed in trash.trashed_snapshots(place)
        if trashed.name == options.snapshot
    ]
    if not found:
        raise UsageError(f"{options.snapshot} is not in the trash", hint="'turku-storage trash list' shows what is")
    if len({each.place for each in found}) > 1:
        raise UsageError(
            f"{options.snapshot} is in the trash of several sources", hint="say which: --machine and --source"
        )
    trashed = found[-1]
    with locked(trashed.place):
        held_until = trash.restore(trashed, now=clock.now(), trash_days=configuration.trash_days)
    say(
        f"{trashed.place.snapshot(trashed.name)} is back; it is not pruned before {held_until.isoformat()}. "
        "To keep it longer, put 'save' into its name"
    )
    return 0


def _empty(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    from turku.policy import snapshot_mode
    from turku.storage.disk import trash
    from turku.storage.disk.source_lookup import find_sources, locked
    from turku.storage.snapshots import MODES

    if options.older_than is None and not options.yes:
        raise UsageError(
            "what is removed from the trash cannot be brought back",
            hint="--yes removes all of it, --older-than DAYS what was removed longer ago",
        )
    removed_until = clock.now() - timedelta(days=options.older_than or 0)
    count = 0
    for place in find_sources(configuration, machine=options.machine, source=options.source):
        with locked(place):
            gone = trash.empty(place, removed_until=removed_until)
            if gone:
                MODES[snapshot_mode.DEFAULT](place).collect()
            count += len(gone)
            for each in gone:
                say(f"removed {each.place.machine_dir.name}  {each.place.source}  {each.name}")
    say(f"{count} snapshot{'' if count == 1 else 's'} removed")
    return 0
