"""``turku-storage drill``: restore a sample of each source, or of those that are due, to prove that it works."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING, Any

from turku.core.cli import options as common
from turku.core.cli.arguments import Parser
from turku.core.cli.listing import Say
from turku.core.cli.output import json_text
from turku.core.cli.program import Command
from turku.storage.commands.setup import EXIT_PROBLEMS, add_selection, configured

if TYPE_CHECKING:
    from turku.core.clock import Clock
    from turku.storage.config.model import StorageConfig
    from turku.storage.integrity.drill_record import DrillResult

_LOG = logging.getLogger(__name__)


def add_arguments(parser: Parser) -> None:
    """Add the options."""
    add_selection(parser)
    parser.add_argument(
        "--due",
        action="store_true",
        help="Only sources whose last good drill is drill_days old, or whose last one failed a day ago. The timer "
        "does this.",
    )
    common.add_json(parser)


def run(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    """Drill the sources that were chosen. Return 1 where a drill failed."""
    from turku.core import lock
    from turku.core.kernel.priority import lower_priority
    from turku.errors import TurkuError
    from turku.protocol.integrity_messages import SourceIntegrity
    from turku.storage.disk.source_lookup import find_sources
    from turku.storage.integrity import drill, drill_record, report

    found: list[dict[str, Any]] = []
    with lock.exclusive(configuration.state.lock_dir, "drill"):
        drill.remove_leftovers(configuration.integrity)
        if options.due:
            lower_priority()
        for place in find_sources(configuration, machine=options.machine, source=options.source):
            if options.due and not drill_record.is_due(
                place, drill_days=configuration.integrity.drill_days, now=clock.now()
            ):
                continue
            made = drill.drill(configuration, place, clock=clock)
            try:
                drill_record.write(made)
            except TurkuError as error:
                made.problems.append(f"the result cannot be recorded: {error.message}")
            integrity = {place.source: SourceIntegrity(drill=made.outcome(configuration.integrity))}
            delivery = report.send(configuration, place.machine_dir.name, integrity)
            found.append(_as_object(made, is_reported=delivery is report.Delivery.NOW))
            if not options.json:
                say(f"{place.machine_dir.name}  {place.source}  {'good' if made.is_good else 'FAILED'}")
                for line in made.summary.splitlines():
                    say(f"    {line}")
    if options.json:
        say(json_text(found, indent=4))
    elif not found:
        say("no drill is due" if options.due else "nothing is kept here")
    return 0 if all(each["success"] for each in found) else EXIT_PROBLEMS


def _as_object(made: DrillResult, *, is_reported: bool) -> dict[str, Any]:
    return {
        "machine": made.place.machine_dir.name,
        "source": made.place.source,
        "snapshot": made.snapshot,
        "success": made.is_good,
        "files": made.files,
        "bytes": made.size_bytes,
        "seconds": round((made.end - made.begin).total_seconds(), 3),
        "without_checksum": made.unchecked,
        "problems": made.problems,
        "is_reported": is_reported,
    }


COMMAND = Command(
    "drill",
    "Restore a sample of each source's newest snapshot, compare it, and report the result.",
    configured(run, needs_all_volumes=True),
    (
        ("Drill every source:", "{prog}"),
        ("Drill one source:", "{prog} --machine web-1 --source etc"),
        ("Drill those whose turn it is, as the timer does:", "{prog} --due"),
    ),
    add_arguments,
    "The sample goes into a scratch directory, and drill_check_program checks it.",
    {1: "A drill failed.", 75: "Another drill is running."},
)
