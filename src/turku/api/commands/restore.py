"""`turku-api restore`: restores asked for, approved, ended and listed by an operator at the coordinator."""

import argparse
import os
from collections.abc import Callable
from functools import partial

from django.utils import timezone

from turku.api.audit import log
from turku.api.backups.models import Source
from turku.api.commands.setup import configured
from turku.api.fleet.named_machine import named_machine
from turku.api.fleet.search import uuid_begins, uuid_of
from turku.api.restores import description, new_request, transitions
from turku.api.restores.models import OPEN, Overwrite, RequestState, RestoreRequest
from turku.core.cli import listing as table
from turku.core.cli import options as common
from turku.core.cli.listing import Say
from turku.core.cli.output import json_text
from turku.core.cli.program import Argument, Command, CommandGroup
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import UsageError
from turku.policy.machine_choice import MACHINE_HELP

_LISTED = 200
_WHERE = "--directory /new --reason T42"


def _named_request(text: str) -> RestoreRequest:
    """Return the one request whose id is, or begins with, the text. Raises UsageError for none and for several."""
    rows = RestoreRequest.objects.select_related("source__machine", "target")
    uuid = uuid_of(text)
    found = list(rows.filter(pk=uuid) if uuid else rows.filter(uuid_begins("id", text)).order_by()[:2])
    if len(found) != 1:
        problem = f"more than one restore request begins with {text!r}" if found else f"no restore request is {text!r}"
        raise UsageError(problem, hint="`turku-api restore list --all` shows them. Use at least four digits")
    return found[0]


def _request(options: argparse.Namespace, say: Say) -> int:
    """Ask for a restore of a machine's source."""
    machine = named_machine(options.machine)
    source = Source.objects.filter(machine=machine, name=options.source).first()
    if source is None:
        known = ", ".join(Source.objects.filter(machine=machine).values_list("name", flat=True)[:20])
        raise UsageError(f"machine {machine} has no source {options.source!r}", hint=f"it has {known or 'none'}")
    source.machine = machine
    wish = new_request.RequestedRestore(
        source=source,
        target=named_machine(options.onto) if options.onto else None,
        directory=options.directory,
        reason=options.reason,
        snapshot=options.snapshot,
        moment=options.at or "",
        paths=[os.fsencode(path) for path in options.path],
        overwrite=options.overwrite,
        days=options.days,
    )
    request = new_request.create(wish, actor=log.COMMAND_LINE, may_choose_any_machine=True, now=SYSTEM_CLOCK.now())
    if options.raw:
        say(str(request.pk))
        return 0
    say(
        f"Request {request.pk} {_sentence(request)}.\n"
        f"{description.subject_text(request)} of {machine}, onto {request.target}, into {request.directory}\n"
        "The machine restores only into directories that its own configuration allows (remote_restore)."
    )
    if request.state == RequestState.REQUESTED:
        say(f"Approve it: turku-api restore approve {str(request.pk)[:8]}")
    return 0


def _list(options: argparse.Namespace, say: Say) -> int:
    """Print the requests, newest first."""
    transitions.expire(now=SYSTEM_CLOCK.now())
    found = RestoreRequest.objects.select_related("source__machine__storage", "target")
    rows = list((found if options.all else found.filter(state__in=OPEN))[:_LISTED])
    if options.json:
        say(json_text([description.message_fields(row) for row in rows], indent=4))
        return 0
    if not rows:
        say("No restore request is open." if not options.all else "There is no restore request.")
        return 0
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
            for row in rows
        ),
        say,
        drop=("by", "requested", "onto"),
        notes=[f"why: {reason}" if (reason := description.reason_text(row)) else "" for row in rows],
    )
    return 0


def _decide(options: argparse.Namespace, say: Say, act: Callable[..., object]) -> int:
    """Approve, reject or cancel a request."""
    now = SYSTEM_CLOCK.now()
    transitions.expire(now=now)
    request = _named_request(options.request)
    act(request, actor=log.COMMAND_LINE, now=now)
    say(f"Request {request.pk} {_sentence(request)}.")
    return 0


def _decision(word: str, summary: str, act: Callable[..., object]) -> Command:
    return Command(
        word,
        summary,
        configured(partial(_decide, act=act)),
        (
            (f"{word.capitalize()} a request, named by the first digits of its id:", "{prog} 7c2a"),
            (f"{word.capitalize()} one, named by its whole id:", "{prog} 7c2a0d4c-5b6e-4f70-8d1b-2a9c3e5f7081"),
            ("Show those that are left afterwards:", "{prog} 7c2a && turku-api restore list"),
        ),
        (Argument("request", metavar="ID", help="Id of the request, or its first digits, at least four."),),
    )


def _sentence(request: RestoreRequest) -> str:
    state = RequestState(request.state)
    if state is RequestState.REQUESTED:
        missing = request.approvals_needed - len(request.approvers)
        return f"{state.label}: {missing} of {request.approvals_needed} missing"
    return state.label if state in (RequestState.WAITING,) else f"is {state.label}"


_REQUEST_ARGUMENTS = (
    Argument("machine", metavar="MACHINE", help=f"Machine whose files they are: {MACHINE_HELP}."),
    Argument("source", metavar="SOURCE", help="Name of the source."),
    Argument("--directory", required=True, metavar="DIR", help="Directory to restore into, on that machine."),
    Argument("--reason", required=True, metavar="TEXT", help="Reason, which the audit log keeps."),
    Argument("--onto", metavar="MACHINE", help="Machine to restore onto (default: the same)."),
    Argument("--path", action="append", default=[], metavar="PATH", help="Restore only this path. May be repeated."),
    Argument("--snapshot", default="", metavar="NAME", help="Snapshot (default: the latest)."),
    common.AT,
    Argument(
        "--overwrite",
        choices=Overwrite.values,
        default=Overwrite.NEVER.value,
        help="Replace existing files that differ (default: %(default)s).",
    ),
    Argument(
        "--days",
        type=int,
        default=new_request.DEFAULT_DAYS,
        metavar="N",
        help="Expire after N days (default: %(default)s).",
    ),
    Argument("--raw", action="store_true", help="Print the id of the request and nothing else."),
)


COMMANDS = (
    CommandGroup(
        "restore",
        "Ask for restores, which machines pick up, and approve, reject, cancel or list them.",
        (
            Command(
                "request",
                "Ask for a restore of a machine's source.",
                configured(_request),
                (
                    ("Restore a source into a directory:", f"{{prog}} web etc {_WHERE}"),
                    ("Restore one directory:", f"{{prog}} web etc {_WHERE} --path ssh"),
                    ("Restore onto another machine:", f"{{prog}} web etc {_WHERE} --onto web/3"),
                ),
                _REQUEST_ARGUMENTS,
            ),
            _decision("approve", "Approve a request.", transitions.approve),
            _decision("reject", "Reject a request that waits for approval.", transitions.reject),
            _decision("cancel", "Cancel a request at any stage, also while the machine restores.", transitions.cancel),
            Command(
                "list",
                "Show the open requests, newest first.",
                configured(_list),
                (
                    ("Show the open requests:", "{prog}"),
                    ("Show those that are over as well:", "{prog} --all"),
                    ("Print only the reasons:", "{prog} --json | jq -r '.[].reason'"),
                ),
                (Argument("--all", action="store_true", help="Show requests that are over as well."), common.JSON),
            ),
        ),
        (
            ("Ask for a restore:", "{prog} request web/2 home --directory /srv/new --reason mail"),
            ("Show the open requests:", "{prog} list"),
            ("Approve a request:", "{prog} approve 7c2a"),
        ),
    ),
)
