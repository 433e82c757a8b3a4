"""``turku-storage drill``: restores are tried, of all sources or of those whose turn it is."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from turku.core.cli.output import json_text
from turku.storage.commands import trash

if TYPE_CHECKING:
    from turku.core.clock import Clock
    from turku.storage.config.configuration import StorageConfig

_EXIT_PROBLEMS = 1
_LOG = logging.getLogger(__name__)

Say = Callable[[str], None]


def add(parser: argparse.ArgumentParser, add_directory: Callable[[argparse.ArgumentParser], None]) -> None:
    """Give the parser its options."""
    add_directory(parser)
    trash.add_source(parser)
    parser.add_argument(
        "--due",
        action="store_true",
        help="only sources whose last drill is older than drill_days, or failed a day ago or more: what the timer does",
    )
    parser.add_argument("--json", action="store_true", help="as a JSON array, for programs")


def run(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    """The exit code: 1 where a drill failed."""
    from turku.core import lock
    from turku.core.priority import be_gentle
    from turku.errors import TurkuError
    from turku.protocol.integrity_messages import SourceIntegrity
    from turku.storage.disk.source_lookup import find_sources
    from turku.storage.integrity import drill, drill_record, report

    found: list[dict[str, Any]] = []
    with lock.exclusive(configuration.lock_dir, "drill"):
        drill.sweep(configuration)
        if options.due:
            be_gentle()
        for place in find_sources(configuration, machine=options.machine, source=options.source):
            if options.due and not drill_record.is_due(place, drill_days=configuration.drill_days, now=clock.now()):
                continue
            made = drill.drill(configuration, place, clock=clock)
            try:
                drill_record.write(made)
            except TurkuError as error:
                made.problems.append(f"it cannot be written down: {error.message}")
            integrity = {place.source: SourceIntegrity(drill=made.outcome(configuration))}
            told = report.send(configuration, place.machine_dir.name, integrity)
            found.append(
                {
                    "machine": place.machine_dir.name,
                    "source": place.source,
                    "snapshot": made.snapshot,
                    "success": made.is_good,
                    "files": made.files,
                    "bytes": made.size_bytes,
                    "seconds": round((made.end - made.begin).total_seconds(), 3),
                    "without_checksum": made.unchecked,
                    "problems": made.problems,
                    "told_the_coordinator": told is report.Delivery.NOW,
                }
            )
            if not options.json:
                say(f"{place.machine_dir.name}  {place.source}  {'good' if made.is_good else 'FAILED'}")
                for line in made.summary.splitlines():
                    say(f"    {line}")
    if options.json:
        say(json_text(found, indent=4))
    elif not found:
        say("no drill is due" if options.due else "nothing is kept here")
    return 0 if all(each["success"] for each in found) else _EXIT_PROBLEMS
