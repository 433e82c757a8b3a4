"""`turku-api clean-logs`: delete old records of backup runs."""

import argparse

from turku.api.backups import runs
from turku.api.commands.setup import configured
from turku.core.cli.arguments import count
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command
from turku.core.clock import SYSTEM_CLOCK
from turku.core.units import count_of

_LONGEST_DAYS = 36_500


def run(options: argparse.Namespace, say: Say) -> int:
    """Delete the records of runs that are older than a number of days."""
    deleted = runs.delete_old(older_than_days=options.days, now=SYSTEM_CLOCK.now())
    say(f"{count_of(deleted, 'record')} deleted.")
    return 0


COMMANDS = (
    Command(
        "clean-logs",
        "Delete old records of backup runs. Snapshots are not touched.",
        configured(run),
        (
            ("Keep the records of a quarter, as the timer does:", "{prog} --days 90"),
            ("Keep those of a year:", "{prog} --days 365"),
            ("Save the records to a file first:", "turku-api dumpdata backups > runs.json && {prog} --days 90"),
        ),
        (
            Argument(
                "--days",
                type=count(_LONGEST_DAYS),
                required=True,
                metavar="N",
                help="Delete records that are older than this many days.",
            ),
        ),
    ),
)
