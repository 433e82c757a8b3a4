"""``turku-api machine list``, ``show``, ``disable``, ``enable``, ``remove``, ``readmit`` and ``move``."""

import argparse
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from turku.api.audit import log
from turku.api.backups.kept_after_move import default_end
from turku.api.backups.profiles import reports
from turku.api.commands.fleet import questions, rows
from turku.api.commands.fleet.rows import ago, day
from turku.api.commands.setup import configured
from turku.api.fleet import former_history, moving, removal
from turku.api.fleet.models import Machine
from turku.api.fleet.named_machine import named_machine, named_removed_machine, removed_machines
from turku.api.fleet.named_storage import named_storage
from turku.api.fleet.search import matching_machines
from turku.api.status import fleet_marks, reasons, source_marks
from turku.api.status.marks import Mark, has_mark
from turku.core.cli import listing, person
from turku.core.cli import options as common
from turku.core.cli.listing import Say
from turku.core.cli.output import json_text
from turku.core.cli.program import Argument, Command, OneOf
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import UsageError
from turku.policy.machine_choice import MACHINE_HELP

_STATES = ("problem", *(mark.value for mark in Mark))


def chosen_states(text: str) -> list[Mark]:
    """Return the marks that a word of ``--state`` stands for."""
    return [mark for mark in Mark if mark.is_problem] if text == "problem" else [Mark(text)]


def _list(options: argparse.Namespace, say: Say) -> int:
    now = SYSTEM_CLOCK.now()
    if options.removed:
        return _list_removed(options, say, now)
    found = fleet_marks.machines(now=now).select_related("storage")
    if options.storage:
        found = found.filter(storage=named_storage(options.storage))
    if options.name:
        found = found.filter(matching_machines(options.name.split()))
    if options.state:
        found = found.filter(has_mark(fleet_marks.machine_conditions(now=now), chosen_states(options.state)))
    machines = list(found)
    why = rows.machine_reasons(machines, now=now)
    if options.json:
        listing.array((rows.machine_object(row, reason) for row, reason in zip(machines, why, strict=True)), say)
        return 0
    if options.versions:
        headings: Sequence[str] = ("machine", *rows.VERSION_COLUMNS, "seen")
        table = [(str(row), *rows.versions(row), ago(row.date_checked_in, now=now)) for row in machines]
        listing.show(headings, table, say, drop=("python", "seen", "ssh"), empty="no machine fits")
        return 0
    table = [
        (
            str(row),
            Mark(row.mark).label,
            rows.NOTHING if row.storage is None else row.storage.name,
            ago(row.date_checked_in, now=now),
            str(row.uuid)[:8],
        )
        for row in machines
    ]
    listing.show(
        ("machine", "health", "storage", "seen", "uuid"), table, say, drop=("uuid",), notes=why, empty="no machine fits"
    )
    return 0


def _list_removed(options: argparse.Namespace, say: Say, now: datetime) -> int:
    removed = list(removed_machines())
    if options.json:
        listing.array(map(rows.removed_object, removed), say)
        return 0
    table = [(str(row), day(row.date_removed), row.removed_by, str(row.uuid)) for row in removed]
    histories = [
        "; ".join(rows.history_sentence(each, now=now) for each in former_history.of_machine(row.uuid))
        for row in removed
    ]
    headings = ("machine", "removed", "by", "uuid")
    listing.show(headings, table, say, drop=("by",), notes=histories, empty="no machine was removed")
    return 0


def _show(options: argparse.Namespace, say: Say) -> int:
    now = SYSTEM_CLOCK.now()
    row = fleet_marks.machines(now=now).select_related("storage", "auth").get(pk=named_machine(options.machine).pk)
    worst = reasons.worst_sources([row.pk], now=now).get(row.pk)
    reason = reasons.machine_reason(row, worst, now=now)
    sources = list(source_marks.sources(now=now).filter(machine=row).select_related("machine__storage"))
    histories = list(former_history.of_machine(row.uuid))
    if options.json:
        shown = {
            **rows.machine_object(row, reason),
            "next_step": reasons.machine_next_step(row, worst),
            "registered_with": row.auth.name,
            "ssh_key_fingerprint": row.ssh_key_fingerprint,
            "sources": [_source_object(each, now) for each in sources],
            "profiles": reports.of_machine(row),
            "former_histories": [rows.history_object(each) for each in histories],
        }
        say(json_text(shown, indent=4))
        return 0
    rows.show_fields(
        (
            ("Machine", str(row)),
            ("UUID", str(row.uuid)),
            ("Comment", row.comment),
            ("Health", f"{Mark(row.mark).label}{f': {reason}' if reason else ''}"),
            ("Next step", reasons.machine_next_step(row, worst)),
            ("Storage", rows.NOTHING if row.storage is None else row.storage.name),
            ("Last seen", ago(row.date_checked_in, now=now)),
            ("Registered", f"{day(row.date_registered)} with {row.auth}"),
            ("Muted until", day(row.date_muted_until)),
            ("SSH key", row.ssh_key_fingerprint),
            ("Versions", ", ".join(f"{name} {value}" for name, value in row.versions.items())),
            ("Profiles", reports.text_of(row)),
            ("Formerly", "\n".join(rows.history_sentence(each, now=now) for each in histories)),
        ),
        say,
    )
    say("")
    taken = (reports.of_machine(row) or {}).get("taken", {})
    table = [
        (
            *(each.name, Mark(each.mark).label, ago(each.date_last_backed_up, now=now), each.frequency),
            *(each.path, taken.get(each.name, "")),
        )
        for each in sources
    ]
    headings = ("source", "health", "last good backup", "schedule", "path", "profile")
    listing.show(headings, table, say, drop=("schedule", "profile"), empty="no sources")
    return 0


def _source_object(row: Any, now: datetime) -> dict[str, Any]:
    return {
        "name": row.name,
        "health": row.mark,
        "reason": reasons.source_reason(row, Mark(row.mark), now=now),
        "path": row.path,
        "frequency": row.frequency,
        "retention": row.retention,
        "active": row.active,
        "published": row.published,
        "last_good_backup": rows.iso(row.date_last_backed_up),
        "next_backup": rows.iso(row.date_next_backup),
    }


def _switch(options: argparse.Namespace, say: Say, *, is_active: bool) -> int:
    machine = named_machine(options.machine)
    is_changed = moving.set_active(machine, is_active=is_active, actor=log.COMMAND_LINE, now=SYSTEM_CLOCK.now())
    state = "enabled" if is_active else "disabled"
    say(f"Machine {machine} ({machine.uuid}) {'is' if is_changed else 'was already'} {state}.")
    if is_changed and not is_active:
        say("It is not backed up, and its storage does not let it in. Its history stays.")
    return 0


def _remove(options: argparse.Namespace, say: Say) -> int:
    now = SYSTEM_CLOCK.now()
    machine = named_machine(options.machine)
    storages = [machine.storage, *(each.storage for each in former_history.of_machine(machine.uuid))]
    places = " and ".join(dict.fromkeys(str(each) for each in storages if each is not None)) or "no storage"
    text = options.history
    if text is None:
        if not person.is_there():
            raise UsageError(
                f"what is to become of the history of machine {machine}, on {places}?",
                hint=f"--history {questions.FATES}",
            )
        text = person.answer(f"Machine {machine} ({machine.uuid}), history on {places}: {questions.FATES}?")
    keep_until = questions.end_of_history(text, now=now)
    histories = removal.remove_machine(machine, keep_until, actor=log.COMMAND_LINE, now=now)
    say(f"Machine {machine} ({machine.uuid}) is removed. It is refused when it comes back.")
    for each in histories:
        say(rows.history_sentence(each, now=now).capitalize() + ".")
    say(f"To take it back: turku-api machine readmit {machine.uuid}")
    return 0


def _readmit(options: argparse.Namespace, say: Say) -> int:
    removed = named_removed_machine(options.machine)
    machine = removal.readmit_machine(removed, actor=log.COMMAND_LINE, now=SYSTEM_CLOCK.now())
    where = f", with its history on {machine.storage}" if machine.storage else ""
    say(f"Machine {machine} ({machine.uuid}) is known again{where}.")
    say("What its storage moved to the trash comes back by: turku-storage trash restore")
    say("On the machine, to declare its sources now: turku-update-config")
    return 0


def kept_until(machine: Machine, text: str | None, *, now: datetime) -> datetime | None:
    """Return the end of a moved machine's old history, as an option has it, or by default."""
    return default_end(machine, now=now) if text is None else questions.end_of_history(text, now=now)


def _move(options: argparse.Namespace, say: Say) -> int:
    now = SYSTEM_CLOCK.now()
    machine, target = named_machine(options.machine), named_storage(options.storage)
    keep_until = kept_until(machine, options.keep_until, now=now)
    former = machine.storage
    history = moving.move(machine, target, keep_until, actor=log.COMMAND_LINE, now=now)
    say(f"Machine {machine} ({machine.uuid}) is backed up by {target} from its next backup on, which is a full one.")
    if history is not None:
        say(
            f"Its history on {former} is {former_history.fate(history.date_keep_until, now=now)}. Until then it is not "
            f"pruned, and turku-agent on the machine lists it and restores from it (--storage {former})."
        )
    say(f"{target} lets it in within minutes. To back it up then: turku-api back-up-now {machine.uuid}")
    return 0


MACHINE = Argument("machine", metavar="MACHINE", help=f"Machine: {MACHINE_HELP}.")
KEEP_UNTIL = Argument(
    "--keep-until",
    metavar="DAY",
    help="Keep the history on the former storage until then: 2027-01-31, 90d, or 'forever' (default: as long as its "
    "retention reaches back, and at least 90 days).",
)
STATE = Argument("--state", choices=_STATES, metavar="STATE", help=f"Only those in this state: {', '.join(_STATES)}.")
PROBLEM = Argument("--problem", dest="state", action="store_const", const="problem", help="Only those with a problem.")
COMMANDS = (
    Command(
        "list",
        "List machines, with their health.",
        configured(_list),
        (
            ("Show all machines:", "{prog}"),
            ("Show those of one storage that have a problem:", "{prog} --storage backup1 --problem"),
            ("Print the UUIDs of those whose name contains 'web':", "{prog} --name web --json | jq -r '.[].uuid'"),
        ),
        (
            Argument("--storage", metavar="STORAGE", help="Only machines of this storage."),
            Argument("--name", metavar="WORDS", help="Only machines with these words in name or comment."),
            OneOf(STATE, PROBLEM),
            OneOf(
                Argument("--versions", action="store_true", help="Show the versions of their programs."),
                Argument("--removed", action="store_true", help="Show the machines that were removed."),
            ),
            common.JSON,
        ),
    ),
    Command(
        "show",
        "Show one machine, with its sources.",
        configured(_show),
        (
            ("Show a machine:", "{prog} web/2"),
            ("Name it by the first digits of its UUID:", "{prog} 9bef"),
            ("Print the storage that backs it up:", "{prog} web/2 --json | jq -r .storage"),
        ),
        (MACHINE, common.JSON),
    ),
    Command(
        "disable",
        "Stop the backups of a machine. Its history stays.",
        configured(partial(_switch, is_active=False)),
        (
            ("Disable a machine:", "{prog} web/2"),
            ("Name it by the first digits of its UUID:", "{prog} 9bef"),
            ("Disable it, and show it:", "{prog} web/2 && turku-api machine show web/2"),
        ),
        (MACHINE,),
        "Neither coordinator nor storages let it in until it is enabled.",
    ),
    Command(
        "enable",
        "Let a disabled machine be backed up again.",
        configured(partial(_switch, is_active=True)),
        (
            ("Enable a machine:", "{prog} web/2"),
            ("Name it by the first digits of its UUID:", "{prog} 9bef"),
            ("Enable it, and back it up:", "{prog} web/2 && turku-api back-up-now web/2"),
        ),
        (MACHINE,),
    ),
    Command(
        "remove",
        "Remove a machine, and say what becomes of its history.",
        configured(_remove),
        (
            ("Be asked what becomes of its history:", "{prog} web/2"),
            ("Keep its history for a while:", "{prog} web/2 --history keep-until=2099-01-31"),
            ("Let its storage move it to the trash:", "{prog} web/2 --history trash"),
        ),
        (MACHINE, Argument("--history", metavar="FATE", help=f"What becomes of its history: {questions.FATES}.")),
        "It is refused when it comes back by its own timer, until an operator readmits it. What a storage removes, and "
        "when, follows the storage's own configuration (accept_removals, retention_floor, trash_days).",
    ),
    Command(
        "readmit",
        "Take a removed machine back, with its identity.",
        configured(_readmit),
        (
            ("Readmit a machine:", "{prog} web/2"),
            ("Name it by the first digits of its UUID:", "{prog} 9bef"),
            ("Readmit it, and show it:", "{prog} web/2 && turku-api machine show web/2"),
        ),
        (MACHINE,),
    ),
    Command(
        "move",
        "Let another storage back a machine up from now on.",
        configured(_move),
        (
            ("Move a machine:", "{prog} web/2 backup2"),
            ("Keep its old history for a year:", "{prog} web/2 backup2 --keep-until 365d"),
            ("Move it, and back it up:", "{prog} web/2 backup2 && turku-api back-up-now web/2"),
        ),
        (MACHINE, Argument("storage", metavar="STORAGE", help="Name of the storage."), KEEP_UNTIL),
        "Nothing is copied. The new history begins with the next backup, which is a full one. The old history stays on "
        "the former storage until its end, is not pruned, and can be browsed and restored from the machine.",
    ),
)
