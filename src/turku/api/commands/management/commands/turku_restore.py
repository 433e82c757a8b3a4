"""`turku-api restore`: restores asked for, approved, ended and listed by an operator at the coordinator."""

from __future__ import annotations

import os
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from turku.api.audit import log
from turku.api.backups.models import Source
from turku.api.commands.command import TurkuCommand
from turku.api.fleet.named_machine import MACHINE_HELP, named_machine
from turku.api.restores import description, new_request, transitions
from turku.api.restores.models import OPEN, Overwrite, RequestState, RestoreRequest
from turku.api.restores.named_request import named_request
from turku.core.cli import listing as table
from turku.core.cli.output import json_text
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import UsageError

_LISTED = 200


class Command(TurkuCommand):
    """Restore requests. Who runs the command is one operator, called turku-api, with a superuser's rights."""

    help = "Ask for restores, approve, reject, cancel and list them."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        request = actions.add_parser("request", help="ask for a restore of a machine's source")
        request.add_argument("machine", help=f"whose files they are: {MACHINE_HELP}")
        request.add_argument("source", help="the source's name")
        request.add_argument("--directory", required=True, metavar="DIR", help="where they go on the machine")
        request.add_argument("--reason", required=True, metavar="TEXT", help="why; the audit log keeps it")
        request.add_argument("--onto", metavar="MACHINE", help="another machine to restore onto (default: the same)")
        request.add_argument("--path", action="append", default=[], metavar="PATH", help="this alone; repeatable")
        request.add_argument("--snapshot", default="", metavar="NAME", help="from this snapshot (default: the latest)")
        request.add_argument("--at", default="", metavar="MOMENT", help='as it was then, such as "3 days ago"')
        request.add_argument(
            "--overwrite", choices=Overwrite.values, default=Overwrite.NEVER.value, help="files that are there already"
        )
        request.add_argument(
            "--days", type=int, default=new_request.DEFAULT_DAYS, metavar="N", help="expires when not taken up"
        )
        request.add_argument("--raw", action="store_true", help="print the request's id and nothing else")
        for word, meaning in (
            ("approve", "let the machine pick it up, where no further approval is needed"),
            ("reject", "end one that waits for approval"),
            ("cancel", "end one at any stage, also while the machine is at work"),
        ):
            action = actions.add_parser(word, help=meaning)
            action.add_argument("request", help="the request's id, or how it begins")
        rows = actions.add_parser("list", help="the requests that are open, newest first")
        rows.add_argument("--all", action="store_true", help="those that are over, too")
        rows.add_argument("--json", action="store_true", help="for programs")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        now = SYSTEM_CLOCK.now()
        transitions.expire(now=now)
        action = options["action"]
        if action == "request":
            self._request(options)
        elif action == "list":
            self._list(is_all=options["all"], is_json=options["json"])
        else:
            request = named_request(options["request"])
            act = {"approve": transitions.approve, "reject": transitions.reject, "cancel": transitions.cancel}[action]
            act(request, actor=log.COMMAND_LINE, now=now)
            self.stdout.write(f"Request {request.pk} {_sentence(request)}.")

    def _request(self, options: dict[str, Any]) -> None:
        machine = named_machine(options["machine"])
        source = Source.objects.filter(machine=machine, name=options["source"]).first()
        if source is None:
            known = ", ".join(Source.objects.filter(machine=machine).values_list("name", flat=True)[:20])
            raise UsageError(f"machine {machine} has no source {options['source']!r}", hint=f"it has {known or 'none'}")
        source.machine = machine
        wish = new_request.RequestedRestore(
            source=source,
            target=named_machine(options["onto"]) if options["onto"] else None,
            directory=options["directory"],
            reason=options["reason"],
            snapshot=options["snapshot"],
            moment=options["at"],
            paths=[os.fsencode(path) for path in options["path"]],
            overwrite=options["overwrite"],
            days=options["days"],
        )
        request = new_request.create(wish, actor=log.COMMAND_LINE, may_choose_any_machine=True, now=SYSTEM_CLOCK.now())
        if options["raw"]:
            self.stdout.write(str(request.pk))
            return
        self.stdout.write(
            f"Request {request.pk} {_sentence(request)}.\n"
            f"{description.subject_text(request)} of {machine}, onto {request.target}, into {request.directory}\n"
            "The machine obeys only where its own configuration allows it: remote_restore names the directories."
        )

    def _list(self, *, is_all: bool, is_json: bool) -> None:
        rows = RestoreRequest.objects.select_related("source__machine", "target")
        rows = rows if is_all else rows.filter(state__in=OPEN)
        shown = [description.message_fields(row) for row in rows[:_LISTED]]
        if is_json:
            self.stdout.write(json_text(shown, indent=4))
            return
        if not shown:
            self.stdout.write("No restore request is open." if not is_all else "There is no restore request.")
            return
        table.show(
            ("request", "requested", "state", "of", "by", "onto", "what"),
            (
                (
                    str(row.pk)[:8],
                    f"{timezone.localtime(row.date_requested):%Y-%m-%d %H:%M}",
                    RequestState(row.state).label,
                    str(row.source.machine),
                    row.requested_by,
                    f"{row.target}:{row.directory}",
                    description.subject_text(row),
                )
                for row in rows[:_LISTED]
            ),
            self.stdout.write,
            drop=("by", "requested", "onto"),
        )


def _sentence(request: RestoreRequest) -> str:
    state = RequestState(request.state)
    if state is RequestState.REQUESTED:
        missing = request.approvals_needed - len(request.approvers)
        return f"{state.label}: {missing} of {request.approvals_needed} missing"
    return state.label if state in (RequestState.WAITING,) else f"is {state.label}"
