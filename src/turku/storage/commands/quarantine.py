"""``turku-storage quarantine list|accept|reject``: snapshots that look like an attack, and a person's decision."""

import argparse
from functools import partial
from typing import Any

from turku.core.cli import options as common
from turku.core.cli.listing import Say
from turku.core.cli.output import json_text
from turku.core.cli.program import Argument, Command, CommandGroup
from turku.core.clock import Clock
from turku.errors import UsageError
from turku.policy.machine_choice import MACHINE_HELP
from turku.storage.commands.setup import SELECTION, configured, require_volumes, selected
from turku.storage.config.model import StorageConfig
from turku.storage.disk import history, snapshot_notes
from turku.storage.disk.snapshot_notes import Review
from turku.storage.disk.source_lookup import locked

_DECISION = (
    Argument(
        "snapshots", nargs="*", metavar="SNAPSHOT", help="Name of a snapshot (default: all that wait for a decision)."
    ),
    Argument("--machine", required=True, metavar="MACHINE", help=f"Machine: {MACHINE_HELP}."),
    Argument("--source", required=True, metavar="SOURCE", help="Source of the snapshots."),
)


def _list(options: argparse.Namespace, configuration: StorageConfig, _clock: Clock, say: Say) -> int:
    found: list[dict[str, Any]] = []
    for place in selected(options, configuration):
        for stored in history.stored_snapshots(place, configuration.state.timezone):
            noted = snapshot_notes.read(place, stored.name)
            if noted.findings:
                found.append(
                    {
                        "machine": place.machine_dir.name,
                        "source": place.source,
                        "snapshot": stored.name,
                        "signs": list(noted.findings),
                        "review": noted.review,
                    }
                )
    if options.json:
        say(json_text(found, indent=4))
        return 0
    if not found:
        require_volumes(options, configuration)
        say("no snapshot is in quarantine")
    for each in found:
        say(f"{each['machine']}  {each['source']}  {each['snapshot']}  {each['review'] or 'waits for a decision'}")
        for sign in each["signs"]:
            say(f"    {sign}")
    if any(each["review"] is None for each in found):
        say("no snapshot of their sources expires before they are decided: 'quarantine accept' or 'quarantine reject'")
    return 0


def _decide(
    options: argparse.Namespace, configuration: StorageConfig, _clock: Clock, say: Say, *, accepts: bool
) -> int:
    decision = Review.ACCEPTED if accepts else Review.REJECTED
    for place in selected(options, configuration):
        with locked(place):
            stored = history.stored_snapshots(place, configuration.state.timezone)
            quarantined = {each.name for each in stored if snapshot_notes.read(place, each.name).findings}
            unknown = sorted(set(options.snapshots) - quarantined)
            if unknown:
                raise UsageError(f"{', '.join(unknown)}: not a quarantined snapshot of {place.source}")
            chosen = options.snapshots or [
                each.name for each in history.awaiting_review(place, configuration.state.timezone)
            ]
            if not chosen:
                raise UsageError(f"{place.source} has no snapshot that waits for a decision")
            for name in chosen:
                snapshot_notes.change(place, name, review=decision)
                say(f"{name}: {'accepted' if accepts else 'rejected'}")
            waiting = len(history.awaiting_review(place, configuration.state.timezone))
            say(
                f"{waiting} more wait for a decision before retention applies to {place.source} again"
                if waiting
                else f"retention applies to {place.source} again from its next backup on"
            )
    return 0


_SNAPSHOT = "--machine web/0 --source etc 1424400000"

COMMANDS = (
    CommandGroup(
        "quarantine",
        "List the snapshots that look like an attack, and accept or reject them.",
        (
            Command(
                "list",
                "Show quarantined snapshots with their findings, and what was decided.",
                configured(_list, needs_all_volumes=True),
                (
                    ("Show all of them:", "{prog}"),
                    ("Show those of one machine:", "{prog} --machine web/0"),
                    ("Print only the names:", "{prog} --json | jq -r '.[].snapshot'"),
                ),
                (*SELECTION, common.JSON),
            ),
            Command(
                "accept",
                "Count these snapshots like any other: the change was meant.",
                configured(partial(_decide, accepts=True)),
                (
                    ("Accept all that wait of one source:", "{prog} --machine web/0 --source etc"),
                    ("Accept one snapshot, also one that was rejected:", f"{{prog}} {_SNAPSHOT}"),
                    ("Name the machine by the first digits of its UUID:", "{prog} --machine 9bef --source etc"),
                ),
                _DECISION,
            ),
            Command(
                "reject",
                "Count these snapshots nowhere: they hold no good data.",
                configured(partial(_decide, accepts=False)),
                (
                    ("Reject all that wait of one source:", "{prog} --machine web/0 --source etc"),
                    ("Reject one snapshot, also one that was accepted:", f"{{prog}} {_SNAPSHOT}"),
                    ("Name the machine by the first digits of its UUID:", "{prog} --machine 9bef --source etc"),
                ),
                _DECISION,
                "The next snapshot is not built upon them.",
            ),
        ),
        (
            ("Show what waits for a decision:", "{prog} list"),
            ("Accept a change that was meant:", "{prog} accept --machine web/0 --source etc"),
            ("Reject snapshots of encrypted files:", "{prog} reject --machine web/0 --source home"),
        ),
        "Retention removes nothing of a source while one of its snapshots waits for a decision.",
    ),
)
