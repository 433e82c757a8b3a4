"""`turku-api clean-logs`: old records of backup runs deleted."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from turku.api.backups import runs
from turku.api.commands.command import TurkuCommand
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import UsageError

_LONGEST_DAYS = 36_500


class Command(TurkuCommand):
    """Deletes runs older than some days."""

    help = "Delete records of backup runs that are older than N days; snapshots are not touched."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--days", type=int, required=True, metavar="N", help="how old a record must be")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        days: int = options["days"]
        if not 1 <= days <= _LONGEST_DAYS:
            raise UsageError(f"--days must be between 1 and {_LONGEST_DAYS}, not {days}")
        deleted = runs.delete_old(older_than_days=days, now=SYSTEM_CLOCK.now())
        self.stdout.write(f"{deleted} record{'' if deleted == 1 else 's'} deleted.")
