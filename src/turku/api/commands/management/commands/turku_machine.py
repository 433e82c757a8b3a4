"""`turku-api machine`: what an operator does for one machine."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from turku.api.audit import log
from turku.api.backups import operator_actions
from turku.api.backups.models import WITHDRAWN, Source
from turku.api.commands.command import TurkuCommand
from turku.api.fleet import mute
from turku.api.fleet.identity import re_enrolment
from turku.api.fleet.models import Machine
from turku.api.fleet.mute import LONGEST_MUTE
from turku.api.fleet.named_machine import MACHINE_HELP, named_machine
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import InvalidValue, UsageError


class Command(TurkuCommand):
    """Prints a code for a reinstalled machine, or mutes a machine."""

    help = "What an operator does for one machine."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        re_enrol = actions.add_parser("re-enrol", help="print a one-time code for a machine that was installed anew")
        re_enrol.add_argument("machine", help=MACHINE_HELP)
        re_enrol.add_argument("--raw", action="store_true", help="print the bare code and nothing else")

        muting = actions.add_parser("mute", help="call it no problem for a while that the machine is away or fails")
        muting.add_argument("machine", help=MACHINE_HELP)
        muting.add_argument("--days", type=float, required=True, metavar="N", help="the mute ends after so many days")
        muting.add_argument(
            "--reason", required=True, metavar="TEXT", help="why; the site and the health check show it"
        )
        unmuting = actions.add_parser("unmute", help="end a mute now")
        unmuting.add_argument("machine", help=MACHINE_HELP)

        confirming = actions.add_parser("confirm-withdrawal", help="sources that it declares no more are meant to go")
        confirming.add_argument("machine", help=MACHINE_HELP)
        confirming.add_argument(
            "sources", nargs="*", metavar="source", help="names of sources (default: all that it declares no more)"
        )

    def handle(self, *_arguments: Any, **options: Any) -> None:
        machine = named_machine(options["machine"])
        act = {
            "re-enrol": self._re_enrol,
            "mute": self._mute,
            "unmute": self._unmute,
            "confirm-withdrawal": self._confirm_withdrawal,
        }
        act[options["action"]](machine, options)

    def _confirm_withdrawal(self, machine: Machine, options: dict[str, Any]) -> None:
        sources = Source.objects.filter(WITHDRAWN, machine=machine)
        if options["sources"]:
            sources = sources.filter(name__in=options["sources"])
            if missing := set(options["sources"]) - set(sources.values_list("name", flat=True)):
                raise UsageError(
                    f"machine {machine} has no withdrawn source {', '.join(sorted(missing))}",
                    hint="turku-api health --verbose names those that are withdrawn",
                )
        count = operator_actions.confirm_withdrawal(sources, actor=log.COMMAND_LINE, now=SYSTEM_CLOCK.now())
        self.stdout.write(f"{count} withdrawn source{'' if count == 1 else 's'} of machine {machine} confirmed.")

    def _mute(self, machine: Machine, options: dict[str, Any]) -> None:
        now = SYSTEM_CLOCK.now()
        days: float = options["days"]
        if not 0 < days <= LONGEST_MUTE.days:
            raise UsageError(f"--days must be more than 0 and at most {LONGEST_MUTE.days}, not {days:g}")
        until = now + timedelta(days=days)
        try:
            mute.mute(machine, until, options["reason"], actor=log.COMMAND_LINE, now=now)
        except InvalidValue as error:
            raise UsageError(error.message, hint=error.hint) from None
        end = f"{timezone.localtime(until):%Y-%m-%d %H:%M}"
        self.stdout.write(f"Machine {machine} ({machine.uuid}) is muted until {end}.")

    def _unmute(self, machine: Machine, _options: dict[str, Any]) -> None:
        mute.mute(machine, None, "", actor=log.COMMAND_LINE, now=SYSTEM_CLOCK.now())
        self.stdout.write(f"Machine {machine} ({machine.uuid}) is not muted.")

    def _re_enrol(self, machine: Machine, options: dict[str, Any]) -> None:
        if not machine.active:
            raise UsageError(f"machine {machine} is switched off", hint="switch it on in the admin site first")
        code = re_enrolment.issue(machine, actor=log.COMMAND_LINE, now=SYSTEM_CLOCK.now()).reveal()
        if options["raw"]:
            self.stdout.write(code)
            return
        hours = int(re_enrolment.CODE_LIFETIME.total_seconds() // 3600)
        self.stdout.write(
            f"Machine: {machine} ({machine.uuid})\nCode:    {code}\n\n"
            f"The code works once, within {hours} hours, and is shown this once. Whoever uses it becomes this machine: "
            "its old secret and key end then.\nOn the reinstalled machine, run: turku-agent re-enrol"
        )
