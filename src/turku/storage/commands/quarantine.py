"""``turku-storage quarantine list|clean|bad``: the snapshots kept apart, and a person's judgement of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from turku.core.cli.output import json_text
from turku.errors import UsageError
from turku.storage.commands import trash

if TYPE_CHECKING:
    from turku.storage.config.configuration import StorageConfig

Say = Callable[[str], None]


def add(parser: argparse.ArgumentParser, add_directory: Callable[[argparse.ArgumentParser], None]) -> None:
    """Give the parser its subcommands."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="show suspicious snapshots, and what was said of them")
    listing.add_argument("--json", action="store_true", help="as a JSON array, for programs")
    accept = actions.add_parser("accept", help="what looked suspicious was meant: count these snapshots like any other")
    reject = actions.add_parser(
        "reject", help="these snapshots hold no good data: they count nowhere, and the next one is not built upon them"
    )
    for action in (listing, accept, reject):
        add_directory(action)
        trash.add_source(action, required=action is not listing)
    for action in (accept, reject):
        action.add_argument(
            "snapshots", nargs="*", metavar="SNAPSHOT", help="only these; otherwise all that were not judged yet"
        )


def run(options: argparse.Namespace, configuration: StorageConfig, say: Say) -> int:
    """The exit code of the action."""
    return _list(options, configuration, say) if options.action == "list" else _judge(options, configuration, say)


def _list(options: argparse.Namespace, configuration: StorageConfig, say: Say) -> int:
    from turku.storage.disk import history, snapshot_notes
    from turku.storage.disk.source_lookup import find_sources

    found: list[dict[str, Any]] = []
    for place in find_sources(configuration, machine=options.machine, source=options.source):
        for stored in history.stored_snapshots(place, configuration.zone):
            noted = snapshot_notes.read(place, stored.name)
            if noted.suspicious:
                found.append(
                    {
                        "machine": place.machine_dir.name,
                        "source": place.source,
                        "snapshot": stored.name,
                        "signs": list(noted.suspicious),
                        "judgement": noted.judgement,
                    }
                )
    if options.json:
        say(json_text(found, indent=4))
        return 0
    for each in found:
        say(f"{each['machine']}  {each['source']}  {each['snapshot']}  {each['judgement'] or 'not judged'}")
        for sign in each["signs"]:
            say(f"    {sign}")
    if not found:
        say("no snapshot is suspicious")
    elif any(each["judgement"] is None for each in found):
        say("no snapshot of their sources expires before they are decided: 'quarantine accept' or 'quarantine reject'")
    return 0


def _judge(options: argparse.Namespace, configuration: StorageConfig, say: Say) -> int:
    from turku.storage.disk import history, snapshot_notes
    from turku.storage.disk.snapshot_notes import Review
    from turku.storage.disk.source_lookup import find_sources, locked

    judgement = Review.CLEAN if options.action == "accept" else Review.BAD
    for place in find_sources(configuration, machine=options.machine, source=options.source):
        with locked(place):
            stored = history.stored_snapshots(place, configuration.zone)
            suspicious = {each.name for each in stored if snapshot_notes.read(place, each.name).suspicious}
            unknown = sorted(set(options.snapshots) - suspicious)
            if unknown:
                raise UsageError(f"{', '.join(unknown)}: not a suspicious snapshot of {place.source}")
            chosen = options.snapshots or [each.name for each in history.unjudged(place, configuration.zone)]
            if not chosen:
                raise UsageError(f"{place.source} has no snapshot that is waiting to be judged")
            for name in chosen:
                snapshot_notes.change(place, name, judgement=judgement)
                say(f"{name}: {options.action}ed")
            waiting = len(history.unjudged(place, configuration.zone))
            say(
                f"{waiting} more to be judged before {place.source} is pruned again"
                if waiting
                else f"{place.source} is pruned again from its next backup on"
            )
    return 0
