"""`turku-api restore`: restores asked for, approved, ended and listed by an operator at the coordinator."""

from __future__ import annotations

import os
from typing import Any

from django.utils import timezone

from turku.api.audit import log
from turku.api.backups.models import Source
from turku.api.commands.command import TurkuCommand, add_action
from turku.api.fleet.named_machine import MACHINE_HELP, named_machine
from turku.api.restores import description, new_request, transitions
from turku.api.restores.models import OPEN, Overwrite, RequestState, RestoreRequest
from turku.api.restores.named_request import named_request
from turku.core.cli import listing as table
from turku.core.cli import options as common
from turku.core.cli.arguments import Parser
from turku.core.cli.output import json_text
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import UsageError

_LISTED = 200
_WHERE = "--directory /new --reason x"


class Command(TurkuCommand):
    """Ask for restores and decide on requests, as the operator turku-api with the rights of a superuser."""

    help = "Ask for restores that machines pick up; approve, reject, cancel and list them."
    examples = (
        ("Ask for a restore:", "{prog} request web/2 home --directory /srv/new --reason mail"),
        ("Show the open requests:", "{prog} list"),
        ("Approve a request:", "{prog} approve 7c2a"),
    )

    def declare_arguments(self, parser: Parser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        request = add_action(
            actions,
            "request",
            "Ask for a restore of a machine's source.",
            ("Restore a source into a directory:", f"{{prog}} web etc {_WHERE}"),
            ("Restore one directory:", f"{{prog}} web etc {_WHERE} --path ssh"),
            ("Restore onto another machine:", f"{{prog}} web etc {_WHERE} --onto web/3"),
        )
        request.add_argument("machine", metavar="MACHINE", help=f"Machine whose files they are: {MACHINE_HELP}.")
        request.add_argument("source", metavar="SOURCE", help="Name of the source.")
        request.add_argument("--directory", required=True, metavar="DIR", help="Directory on the machine.")
        request.add_argument("--reason", required=True, metavar="TEXT", help="Reason, which the audit log keeps.")
        request.add_argument("--onto", metavar="MACHINE", help="Machine to restore onto (default: the same).")
        request.add_argument(
            "--path", action="append", default=[], metavar="PATH", help="Path to restore alone. May be repeated."
        )
        request.add_argument("--snapshot", default="", metavar="NAME", help="Snapshot (default: the latest).")
        common.add_at(request)
        request.set_defaults(at="")
        request.add_argument(
            "--overwrite",
            choices=Overwrite.values,
            default=Overwrite.NEVER.value,
            help="Replace existing files that differ (default: %(default)s).",
        )
        request.add_argument(
            "--days", type=int, default=new_request.DEFAULT_DAYS, metavar="N", help="Expire after this many days."
        )
        request.add_argument("--raw", action="store_true", help="Print the id of the request and nothing else.")
        for word, summary in (
            ("approve", "Approve a request."),
            ("reject", "Reject a request that waits for approval."),
            ("cancel", "Cancel a request at any stage, also while the machine restores."),
        ):
            action = add_action(
                actions,
                word,
                summary,
                (f"{word.capitalize()} a request by how its id begins:", "{prog} 7c2a"),
                ("See first what it asks for:", "turku-api restore list && {prog} 7c2a"),
                ("See the result:", "{prog} 7c2a && turku-api restore list --all"),
            )
            action.add_argument("request", metavar="ID", help="Id of the request, or how it begins.")
        listed = add_action(
            actions,
            "list",
            "Show the open requests, newest first.",
            ("Show the open requests:", "{prog}"),
            ("Show those that are over as well:", "{prog} --all"),
            ("Print the reasons, for a script:", "{prog} --json | jq -r '.[].reason'"),
        )
        listed.add_argument("--all", action="store_true", help="Show requests that are over as well.")
        common.add_json(listed)

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
