"""`turku-api back-up-now`: have a machine backed up at its next ping."""

from __future__ import annotations

from typing import Any

from turku.api.audit import log
from turku.api.backups.models import Source
from turku.api.backups.operator_actions import back_up_now
from turku.api.commands.command import TurkuCommand
from turku.api.fleet.named_machine import MACHINE_HELP, named_machine
from turku.api.status.fleet_marks import silent_sentence
from turku.core.cli.arguments import Parser
from turku.core.clock import SYSTEM_CLOCK
from turku.core.log import one_line
from turku.errors import UsageError


class Command(TurkuCommand):
    """Make sources due, and print how many."""

    help = "Make the sources of a machine due now. Its next ping starts them."
    examples = (
        ("Back up all sources of a machine:", "{prog} web/2"),
        ("Back up two of them:", "{prog} web/2 etc home"),
        ("Name the machine by its UUID:", "{prog} 9bef0a75"),
    )

    def declare_arguments(self, parser: Parser) -> None:
        parser.add_argument("machine", metavar="MACHINE", help=f"Machine: {MACHINE_HELP}.")
        parser.add_argument("sources", nargs="*", metavar="SOURCE", help="Name of a source (default: all).")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        machine = named_machine(options["machine"])
        wanted: list[str] = options["sources"]
        sources = Source.objects.filter(machine=machine)
        if wanted:
            sources = sources.filter(name__in=wanted)
            if missing := set(wanted) - set(sources.values_list("name", flat=True)):
                raise UsageError(f"machine {machine} has no source {', '.join(sorted(missing))}")
        now = SYSTEM_CLOCK.now()
        count = back_up_now(sources, actor=log.COMMAND_LINE, now=now)
        self.stdout.write(f"{count} of {sources.count()} sources of machine {machine} are due now")
        silent = silent_sentence(sources, now=now)
        if silent:
            self.stdout.write(one_line(silent))
