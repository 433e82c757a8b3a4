"""`turku-api back-up-now`: have a machine backed up at its next ping."""

import argparse

from turku.api.audit import log
from turku.api.backups.models import Source
from turku.api.backups.operator_actions import back_up_now
from turku.api.commands.setup import configured
from turku.api.fleet.named_machine import named_machine
from turku.api.status.fleet_marks import silent_sentence
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command
from turku.core.clock import SYSTEM_CLOCK
from turku.core.log import one_line
from turku.core.units import count_of
from turku.errors import UsageError
from turku.policy.machine_choice import MACHINE_HELP


def run(options: argparse.Namespace, say: Say) -> int:
    """Make sources due, and print how many."""
    machine = named_machine(options.machine)
    wanted: list[str] = options.sources
    sources = Source.objects.filter(machine=machine)
    if wanted:
        sources = sources.filter(name__in=wanted)
        if missing := set(wanted) - set(sources.values_list("name", flat=True)):
            raise UsageError(f"machine {machine} has no source {', '.join(sorted(missing))}")
    now = SYSTEM_CLOCK.now()
    count = back_up_now(sources, actor=log.COMMAND_LINE, now=now)
    verb = "is" if count == 1 else "are"
    say(f"{count} of {count_of(sources.count(), 'source')} of machine {machine} {verb} due now")
    silent = silent_sentence(sources, now=now)
    if silent:
        say(one_line(silent))
    return 0


COMMANDS = (
    Command(
        "back-up-now",
        "Make the sources of a machine due now. Its next ping starts them.",
        configured(run),
        (
            ("Back up all sources of a machine:", "{prog} web/2"),
            ("Back up two of them:", "{prog} web/2 etc home"),
            ("Name the machine by the first digits of its UUID:", "{prog} 9bef"),
        ),
        (
            Argument("machine", metavar="MACHINE", help=f"Machine: {MACHINE_HELP}."),
            Argument("sources", nargs="*", metavar="SOURCE", help="Name of a source (default: all)."),
        ),
    ),
)
