"""`turku-api machine`: what an operator does for one machine."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from turku.api.audit import log
from turku.api.command import TurkuCommand
from turku.api.fleet import re_enrolment
from turku.api.fleet.named_machine import named_machine
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import UsageError


class Command(TurkuCommand):
    """Prints a code with which a reinstalled machine takes its place again."""

    help = "re-enrol: print a one-time code with which a reinstalled machine gets its old UUID and its history back."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        re_enrol = actions.add_parser("re-enrol", help="print a one-time code for a machine that was installed anew")
        re_enrol.add_argument("machine", help="the machine's UUID or unit name")
        re_enrol.add_argument("--raw", action="store_true", help="print the bare code and nothing else")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        machine = named_machine(options["machine"])
        if not machine.active:
            raise UsageError(f"machine {machine} is switched off", hint="switch it on in the admin site first")
        code = re_enrolment.issue(machine, actor=log.COMMAND_LINE, now=SYSTEM_CLOCK.now()).reveal()
        if options["raw"]:
            self.stdout.write(code)
            return
        hours = int(re_enrolment.LIFE.total_seconds() // 3600)
        self.stdout.write(
            f"Machine: {machine} ({machine.uuid})\nCode:    {code}\n\n"
            f"The code works once, within {hours} hours, and is shown this once. Whoever uses it becomes this machine: "
            "its old secret and key end then.\nOn the reinstalled machine, run: turku-agent re-enrol"
        )
