"""`turku-api clean-logs`: delete old records of backup runs."""

from __future__ import annotations

from typing import Any

from turku.api.backups import runs
from turku.api.commands.command import TurkuCommand
from turku.core.cli.arguments import Parser
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import UsageError

_LONGEST_DAYS = 36_500


class Command(TurkuCommand):
    """Delete the records of runs that are older than a number of days."""

    help = "Delete old records of backup runs. Snapshots are not touched."
    examples = (
        ("Keep the records of a quarter:", "{prog} --days 90"),
        ("Keep those of a year:", "{prog} --days 365"),
        ("Keep those of a week:", "{prog} --days 7"),
    )

    def declare_arguments(self, parser: Parser) -> None:
        parser.add_argument(
            "--days", type=int, required=True, metavar="N", help="Delete records that are older than this many days."
        )

    def handle(self, *_arguments: Any, **options: Any) -> None:
        days: int = options["days"]
        if not 1 <= days <= _LONGEST_DAYS:
            raise UsageError(f"--days must be between 1 and {_LONGEST_DAYS}, not {days}")
        deleted = runs.delete_old(older_than_days=days, now=SYSTEM_CLOCK.now())
        self.stdout.write(f"{deleted} record{'' if deleted == 1 else 's'} deleted.")
