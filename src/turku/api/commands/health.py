"""`turku-api health`: the state of the fleet, as a Nagios check."""

import argparse
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from django.db import DatabaseError

from turku.api.commands.setup import unusable_database
from turku.api.status import fleet_health
from turku.api.status.marks import DEFAULT_LIMITS, HealthLimits
from turku.core.cli.arguments import number
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command
from turku.core.clock import SYSTEM_CLOCK

_CRITICAL = 2
_LONGEST = timedelta(days=366)


def _span(name: str, unit: timedelta) -> Callable[[str], timedelta]:
    parse = number(name, _LONGEST / unit, above_least=True)
    return lambda text: parse(text) * unit


_HOURS = _span("hours", timedelta(hours=1))


def run(options: argparse.Namespace, say: Say) -> int:
    """Print the state of the fleet. Return 0 or 2."""
    limits = HealthLimits(options.storage_silent, options.machine_silent, options.overdue)
    try:
        state = fleet_health.current_health(now=SYSTEM_CLOCK.now(), verbose=options.verbose, limits=limits)
    except DatabaseError as error:
        problem = unusable_database(error)
        say(f"CRITICAL: {problem.message} ({problem.hint})")
        return _CRITICAL
    say(state.summary)
    for group in state.groups:
        for sentence in group.sentences:
            say(f"  {sentence}")
    for remark in (*(state.long_queues if options.verbose else ()), *state.remarks):
        say(f"  {remark}")
    return 0 if state.is_healthy else _CRITICAL


COMMANDS = (
    Command(
        "health",
        "Print one line on the state of the fleet, as a Nagios check.",
        partial(run, say=print),
        (
            ("Check the fleet:", "{prog}"),
            ("Name everything that has a problem:", "{prog} --verbose"),
            ("Allow machines to be away for a day:", "{prog} --machine-silent 24"),
        ),
        (
            Argument(
                "--verbose",
                action="store_true",
                help="Print a line for each storage, machine or source with a problem as well.",
            ),
            Argument(
                "--storage-silent",
                type=_span("minutes", timedelta(minutes=1)),
                default=DEFAULT_LIMITS.storage_silence,
                metavar="MINUTES",
                help="A storage is silent after this time (default: 30).",
            ),
            Argument(
                "--machine-silent",
                type=_HOURS,
                metavar="HOURS",
                help="A machine is silent after this time (default: as policies say, or 1).",
            ),
            Argument(
                "--overdue",
                type=_HOURS,
                default=DEFAULT_LIMITS.overdue,
                metavar="HOURS",
                help="A source is overdue this long after its turn (default: 10, or as long as its machine may be "
                "away).",
            ),
        ),
        exit_codes={0: "All is well.", _CRITICAL: "Something needs attention."},
    ),
)
