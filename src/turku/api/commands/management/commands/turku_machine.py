"""`turku-api machine`: re-enrol or mute a machine, and confirm withdrawn sources."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from turku.api.audit import log
from turku.api.backups import operator_actions
from turku.api.backups.models import WITHDRAWN, Source
from turku.api.commands.command import TurkuCommand, add_action
from turku.api.fleet import mute
from turku.api.fleet.identity import re_enrolment
from turku.api.fleet.models import Machine
from turku.api.fleet.mute import LONGEST_MUTE
from turku.api.fleet.named_machine import MACHINE_HELP, named_machine
from turku.core.cli.arguments import Parser
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import InvalidValue, UsageError


class Command(TurkuCommand):
    """Re-enrol or mute a machine, or confirm that sources were withdrawn."""

    help = "Re-enrol or mute a machine, or confirm that sources were withdrawn."
    examples = (
        ("Give a reinstalled machine its history back:", "{prog} re-enrol web/2"),
        ("Mute a machine for two weeks:", "{prog} mute web/2 --days 14 --reason 'moved to another site'"),
        ("Confirm that its sources are not backed up any more:", "{prog} confirm-withdrawal web/2"),
    )

    def declare_arguments(self, parser: Parser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        re_enrol = add_action(
            actions,
            "re-enrol",
            "Print a one-time code for a reinstalled machine.",
            ("Print a code, with what to do:", "{prog} web/2"),
            ("Print the code alone, for a script:", "{prog} web/2 --raw"),
            ("Name the machine by its UUID:", "{prog} 9bef0a75"),
        )
        re_enrol.add_argument("--raw", action="store_true", help="Print the code and nothing else.")
        muting = add_action(
            actions,
            "mute",
            "Hide the problems of a machine from health checks for a while.",
            ("Mute a machine for two weeks:", "{prog} web/2 --days 14 --reason 'moved to another site'"),
            ("Mute it for six hours:", "{prog} web/2 --days 0.25 --reason 'new disk'"),
            ("Name the machine by its UUID:", "{prog} 9bef0a75 --days 1 --reason 'new disk'"),
        )
        muting.add_argument("--days", type=float, required=True, metavar="N", help="End the mute after this many days.")
        muting.add_argument("--reason", required=True, metavar="TEXT", help="Reason, which the health check shows.")
        unmute = add_action(
            actions,
            "unmute",
            "End a mute now.",
            ("End a mute:", "{prog} web/2"),
            ("End it, and check the fleet:", "{prog} web/2 && turku-api health"),
            ("Name the machine by its UUID:", "{prog} 9bef0a75"),
        )
        confirm = add_action(
            actions,
            "confirm-withdrawal",
            "Confirm that sources are not to be backed up any more.",
            ("Confirm all withdrawn sources of a machine:", "{prog} web/2"),
            ("Confirm one:", "{prog} web/2 home"),
            ("See first which are withdrawn:", "turku-api health --verbose && {prog} web/2"),
        )
        for action in (re_enrol, muting, unmute, confirm):
            action.add_argument("machine", metavar="MACHINE", help=f"Machine: {MACHINE_HELP}.")
        confirm.add_argument(
            "sources", nargs="*", metavar="SOURCE", help="Name of a source (default: all withdrawn ones)."
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
