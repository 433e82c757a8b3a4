"""`turku-api machine`: machines of the fleet, their mutes, re-enrolment, and withdrawn sources."""

import argparse
from datetime import timedelta

from django.utils import timezone

from turku.api.audit import log
from turku.api.backups import operator_actions
from turku.api.backups.models import WITHDRAWN, Source
from turku.api.commands.fleet import machine_life
from turku.api.commands.setup import configured
from turku.api.fleet import mute
from turku.api.fleet.identity import re_enrolment
from turku.api.fleet.mute import LONGEST_MUTE
from turku.api.fleet.named_machine import named_machine
from turku.core.cli.arguments import number
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command, CommandGroup
from turku.core.clock import SYSTEM_CLOCK
from turku.core.units import count_of
from turku.errors import InvalidValue, UsageError


def _re_enrol(options: argparse.Namespace, say: Say) -> int:
    machine = named_machine(options.machine)
    if not machine.active:
        raise UsageError(
            f"machine {machine} is switched off", hint=f"switch it on first: turku-api machine enable {machine.uuid}"
        )
    code = re_enrolment.issue(machine, actor=log.COMMAND_LINE, now=SYSTEM_CLOCK.now()).reveal()
    if options.raw:
        say(code)
        return 0
    hours = int(re_enrolment.CODE_LIFETIME.total_seconds() // 3600)
    say(
        f"Machine: {machine} ({machine.uuid})\nCode:    {code}\n\n"
        f"The code works once, within {hours} hours, and is shown this once. Whoever uses it becomes this machine: "
        "its old secret and key end then.\nOn the reinstalled machine, run: turku-agent setup JOIN --re-enrol\n"
        "('turku-api join-token create machine' prints JOIN. One that knows its coordinator runs: turku-agent re-enrol)"
    )
    return 0


def _mute(options: argparse.Namespace, say: Say) -> int:
    machine = named_machine(options.machine)
    now = SYSTEM_CLOCK.now()
    until = now + timedelta(days=options.days)
    try:
        mute.mute(machine, until, options.reason, actor=log.COMMAND_LINE, now=now)
    except InvalidValue as error:
        raise UsageError(error.message, hint=error.hint) from None
    end = f"{timezone.localtime(until):%Y-%m-%d %H:%M}"
    say(f"Machine {machine} ({machine.uuid}) is muted until {end}.")
    return 0


def _unmute(options: argparse.Namespace, say: Say) -> int:
    machine = named_machine(options.machine)
    mute.mute(machine, None, "", actor=log.COMMAND_LINE, now=SYSTEM_CLOCK.now())
    say(f"Machine {machine} ({machine.uuid}) is not muted.")
    return 0


def _confirm_withdrawal(options: argparse.Namespace, say: Say) -> int:
    machine = named_machine(options.machine)
    sources = Source.objects.filter(WITHDRAWN, machine=machine)
    if options.sources:
        sources = sources.filter(name__in=options.sources)
        if missing := set(options.sources) - set(sources.values_list("name", flat=True)):
            raise UsageError(
                f"machine {machine} has no withdrawn source {', '.join(sorted(missing))}",
                hint="turku-api health --verbose names those that are withdrawn",
            )
    count = operator_actions.confirm_withdrawal(sources, actor=log.COMMAND_LINE, now=SYSTEM_CLOCK.now())
    say(f"{count_of(count, 'withdrawn source')} of machine {machine} confirmed.")
    return 0


COMMANDS = (
    CommandGroup(
        "machine",
        "List, disable, move, remove, re-enrol or mute machines, or confirm that sources were withdrawn.",
        (
            *machine_life.COMMANDS,
            Command(
                "re-enrol",
                "Print a one-time code for a reinstalled machine.",
                configured(_re_enrol),
                (
                    ("Print a code, with what to do:", "{prog} web/2"),
                    ("Print only the code, for a script:", "{prog} web/2 --raw"),
                    ("Use it at once on that machine:", "{prog} web/2 --raw | ssh web-2 turku-agent re-enrol"),
                ),
                (machine_life.MACHINE, Argument("--raw", action="store_true", help="Print the code and nothing else.")),
            ),
            Command(
                "mute",
                "Hide the problems of a machine from health checks for a while.",
                configured(_mute),
                (
                    ("Mute a machine for two weeks:", "{prog} web/2 --days 14 --reason 'moved to another site'"),
                    ("Mute it for six hours:", "{prog} web/2 --days 0.25 --reason 'new disk'"),
                    ("Name it by the first digits of its UUID:", "{prog} 9bef --days 180 --reason 'spare machine'"),
                ),
                (
                    machine_life.MACHINE,
                    Argument(
                        "--days",
                        type=number("days", LONGEST_MUTE.days, above_least=True),
                        required=True,
                        metavar="N",
                        help="End the mute after this many days.",
                    ),
                    Argument("--reason", required=True, metavar="TEXT", help="Reason, which the health check shows."),
                ),
            ),
            Command(
                "unmute",
                "End a mute now.",
                configured(_unmute),
                (
                    ("End a mute:", "{prog} web/2"),
                    ("End it, and check the fleet:", "{prog} web/2 && turku-api health"),
                    ("End it, and back the machine up:", "{prog} web/2 && turku-api back-up-now web/2"),
                ),
                (machine_life.MACHINE,),
            ),
            Command(
                "confirm-withdrawal",
                "Confirm that sources are not to be backed up any more.",
                configured(_confirm_withdrawal),
                (
                    ("Confirm all withdrawn sources of a machine:", "{prog} web/2"),
                    ("Confirm one:", "{prog} web/2 home"),
                    ("Confirm all, and check the fleet:", "{prog} web/2 && turku-api health"),
                ),
                (
                    machine_life.MACHINE,
                    Argument(
                        "sources", nargs="*", metavar="SOURCE", help="Name of a source (default: all withdrawn ones)."
                    ),
                ),
            ),
        ),
        (
            ("Show the machines that have a problem:", "{prog} list --problem"),
            ("Give a reinstalled machine its history back:", "{prog} re-enrol web/2"),
            ("Remove a machine, and keep its history:", "{prog} remove web/2 --history keep"),
        ),
    ),
)
