"""`turku-api health`: the state of the fleet, as a Nagios check."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandParser
from django.db import DatabaseError

from turku.api.backups import health
from turku.api.command import TurkuCommand
from turku.core.clock import SYSTEM_CLOCK

_CRITICAL = 2


class Command(TurkuCommand):
    """Prints one line; exit code 0 or 2."""

    help = "One line on the state of the fleet; exit code 0 when all is well, else 2 (a Nagios check)."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--verbose", action="store_true", help="a line more for each storage, machine or source")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        try:
            state = health.fleet(now=SYSTEM_CLOCK.now(), verbose=options["verbose"])
        except DatabaseError as error:
            problem = " ".join(str(error).split())
            self.stdout.write(f"CRITICAL: the database cannot be read: {problem} (is it set up? turku-api migrate)")
            sys.exit(_CRITICAL)
        self.stdout.write(state.summary)
        for group in state.groups:
            for sentence in group.sentences:
                self.stdout.write(f"  {sentence}")
        for remark in (*(state.long_lines if options["verbose"] else ()), *state.remarks):
            self.stdout.write(f"  {remark}")
        if not state.is_healthy:
            sys.exit(_CRITICAL)
