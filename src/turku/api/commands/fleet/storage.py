"""`turku-api storage`: list, show, drain, disable and remove storages."""

import argparse
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from turku.api.audit import log
from turku.api.commands.fleet import machine_life, questions, rows
from turku.api.commands.fleet.rows import ago, day
from turku.api.commands.setup import configured
from turku.api.fleet import former_history, moving, removal
from turku.api.fleet.models import FormerHistory, Machine, Storage
from turku.api.fleet.named_storage import named_removed_storage, named_storage, removed_storages
from turku.api.status import fleet_marks, reasons
from turku.api.status.marks import Mark, has_mark
from turku.core.cli import listing
from turku.core.cli import options as common
from turku.core.cli.listing import Say
from turku.core.cli.output import json_text
from turku.core.cli.program import Argument, Command, CommandGroup, OneOf
from turku.core.clock import SYSTEM_CLOCK
from turku.core.units import count_of


def _counts() -> tuple[Counter[int], Counter[int]]:
    """Return the number of machines, and of former histories, of each storage."""
    return Counter(Machine.objects.order_by().values_list("storage", flat=True)), Counter(
        FormerHistory.objects.order_by().values_list("storage", flat=True)
    )


def _list(options: argparse.Namespace, say: Say) -> int:
    now = SYSTEM_CLOCK.now()
    if options.removed:
        removed = [(row.name, day(row.date_removed), row.removed_by) for row in removed_storages()]
        if options.json:
            listing.array((dict(zip(("name", "removed", "removed_by"), row, strict=True)) for row in removed), say)
        else:
            listing.show(("storage", "removed", "by"), removed, say, empty="no storage was removed")
        return 0
    found = fleet_marks.storages(now=now)
    if options.state:
        found = found.filter(
            has_mark(fleet_marks.storage_conditions(now=now), machine_life.chosen_states(options.state))
        )
    storages = list(found)
    backed_up, former = _counts()
    why = [reasons.storage_reason(row, now=now) for row in storages]
    if options.json:
        listing.array(
            (
                rows.storage_object(row, reason, {"machines": backed_up[row.pk], "former_histories": former[row.pk]})
                for row, reason in zip(storages, why, strict=True)
            ),
            say,
        )
        return 0
    if options.versions:
        headings = ("storage", *rows.VERSION_COLUMNS, "seen")
        table: list[tuple[str, ...]] = [
            (row.name, *rows.versions(row), ago(row.date_checked_in, now=now)) for row in storages
        ]
        listing.show(headings, table, say, drop=("python", "seen", "ssh"), empty="no storage fits")
        return 0
    table = [
        (
            row.name,
            Mark(row.mark).label + (", draining" if row.is_draining else ""),
            str(backed_up[row.pk]),
            str(former[row.pk]),
            rows.space(row.space_available),
            rows.space(row.space_total),
            ago(row.date_checked_in, now=now),
        )
        for row in storages
    ]
    listing.show(
        ("storage", "health", "machines", "former", "available", "total", "seen"),
        table,
        say,
        right=("machines", "former", "available", "total"),
        drop=("total", "former"),
        notes=why,
        empty="no storage fits",
    )
    return 0


def _show(options: argparse.Namespace, say: Say) -> int:
    now = SYSTEM_CLOCK.now()
    row = fleet_marks.storages(now=now).select_related("auth").get(pk=named_storage(options.storage).pk)
    reason = reasons.storage_reason(row, now=now)
    histories = former_history.on_storage(row)
    count = row.machines.count()
    if options.json:
        shown: dict[str, Any] = {
            **rows.storage_object(row, reason, {"machines": count}),
            "registered_with": row.auth.name,
            "ssh_user": row.ssh_ping_user,
            "ssh_host_keys": row.ssh_ping_host_keys,
            "former_histories": [rows.history_object(each) for each in histories],
        }
        say(json_text(shown, indent=4))
        return 0
    rows.show_fields(
        (
            ("Storage", row.name),
            ("Comment", row.comment),
            ("Health", f"{Mark(row.mark).label}{f': {reason}' if reason else ''}"),
            ("Draining", "gets no new machines" if row.is_draining else ""),
            ("Machines", str(count)),
            ("Space", f"{rows.space(row.space_available)} available of {rows.space(row.space_total)}"),
            ("Address", f"{row.ssh_ping_user}@{row.ssh_ping_host}:{row.ssh_ping_port}"),
            ("Last seen", ago(row.date_checked_in, now=now)),
            ("Registered", f"{day(row.date_registered)} with {row.auth}"),
            ("Versions", ", ".join(f"{name} {value}" for name, value in row.versions.items())),
        ),
        say,
    )
    if histories:
        say("")
        table = [
            (
                each.machine_name,
                "moved" if each.is_moved else "removed",
                day(each.date_since),
                former_history.fate(each.date_keep_until, now=now),
                str(each.machine_uuid),
            )
            for each in histories
        ]
        listing.show(("former machine", "was", "since", "history", "uuid"), table, say, drop=("uuid",))
    return 0


def _switch(options: argparse.Namespace, say: Say, *, is_active: bool) -> int:
    storage = named_storage(options.storage)
    is_changed = moving.set_active(storage, is_active=is_active, actor=log.COMMAND_LINE, now=SYSTEM_CLOCK.now())
    say(f"Storage {storage} {'is' if is_changed else 'was already'} {'enabled' if is_active else 'disabled'}.")
    return 0


def _drain(options: argparse.Namespace, say: Say) -> int:
    now = SYSTEM_CLOCK.now()
    storage = named_storage(options.storage)
    target = named_storage(options.to) if options.to else None
    plan = {} if options.only_new else moving.spread(storage, target)
    _show_plan(storage, plan, options.keep_until, say, now=now)
    if options.dry_run:
        return 0
    questions.require_approval("Drain it?", is_given=options.yes or not plan)
    moving.set_draining(storage, is_draining=True, actor=log.COMMAND_LINE, now=now)
    for machine, new in plan.items():
        moving.move(
            machine, new, machine_life.kept_until(machine, options.keep_until, now=now), actor=log.COMMAND_LINE, now=now
        )
    say(f"Storage {storage} gets no new machines. {count_of(len(plan), 'machine')} moved.")
    if plan:
        say("Each is backed up to its new storage from its next backup on, which is a full one.")
    say(f"When its histories have ended: turku-api storage remove {storage}")
    return 0


def _show_plan(storage: Storage, plan: Mapping[Machine, Storage], text: str | None, say: Say, *, now: datetime) -> None:
    say(f"Storage {storage}: {count_of(len(plan), 'machine')} to move")
    for target, count in sorted(Counter(str(each) for each in plan.values()).items()):
        say(f"  {count} to {target}")
    table = [
        (str(machine), str(target), former_history.fate(machine_life.kept_until(machine, text, now=now), now=now))
        for machine, target in plan.items()
    ]
    if table:
        listing.show(("machine", "to", "history here"), table, say)


def _undrain(options: argparse.Namespace, say: Say) -> int:
    storage = named_storage(options.storage)
    moving.set_draining(storage, is_draining=False, actor=log.COMMAND_LINE, now=SYSTEM_CLOCK.now())
    say(f"Storage {storage} gets new machines again. Machines that were moved stay where they are.")
    return 0


def _remove(options: argparse.Namespace, say: Say) -> int:
    storage = named_storage(options.storage)
    removal.remove_storage(
        storage, abandons_histories=options.abandon_histories, actor=log.COMMAND_LINE, now=SYSTEM_CLOCK.now()
    )
    say(f"Storage {storage} is removed. It is refused when it comes back. What is on its disks stays there.")
    say(f"To take it back: turku-api storage readmit {storage}")
    return 0


def _readmit(options: argparse.Namespace, say: Say) -> int:
    removed = named_removed_storage(options.storage)
    removal.readmit_storage(removed, actor=log.COMMAND_LINE, now=SYSTEM_CLOCK.now())
    say(f"Storage {removed} is known again. On the storage, to report now: turku-storage-update-config")
    return 0


_STORAGE = Argument("storage", metavar="STORAGE", help="Name of the storage.")


def _simple(name: str, summary: str, run: Any, details: str = "") -> Command:
    word = name.capitalize()
    return Command(
        name,
        summary,
        configured(run),
        (
            (f"{word} a storage:", "{prog} backup1"),
            ("Show all storages afterwards:", "{prog} backup1 && turku-api storage list"),
            ("Check the fleet afterwards:", "{prog} backup1 && turku-api health"),
        ),
        (_STORAGE,),
        details,
    )


COMMANDS = (
    CommandGroup(
        "storage",
        "List, disable, drain or remove storages.",
        (
            Command(
                "list",
                "List storages, with their health, machines and space.",
                configured(_list),
                (
                    ("Show all storages:", "{prog}"),
                    ("Show those that have a problem:", "{prog} --problem"),
                    ("Print the names of all:", "{prog} --json | jq -r '.[].name'"),
                ),
                (
                    OneOf(machine_life.STATE, machine_life.PROBLEM),
                    OneOf(
                        Argument("--versions", action="store_true", help="Show the versions of their programs."),
                        Argument("--removed", action="store_true", help="Show the storages that were removed."),
                    ),
                    common.JSON,
                ),
                "'former' counts the histories of machines that were moved or removed.",
            ),
            Command(
                "show",
                "Show one storage, with the history that it keeps of machines that were moved or removed.",
                configured(_show),
                (
                    ("Show a storage:", "{prog} backup1"),
                    ("Print its free space in bytes:", "{prog} backup1 --json | jq .space_available_bytes"),
                    ("Print its host keys:", "{prog} backup1 --json | jq -r '.ssh_host_keys[]'"),
                ),
                (_STORAGE, common.JSON),
            ),
            _simple(
                "disable",
                "Stop all backups to a storage. Its history stays.",
                partial(_switch, is_active=False),
                "Its machines stay assigned to it. 'drain' moves them.",
            ),
            _simple("enable", "Let a disabled storage be used again.", partial(_switch, is_active=True)),
            Command(
                "drain",
                "Keep new machines away from a storage, and move its machines to others.",
                configured(_drain),
                (
                    ("Show what would be moved where:", "{prog} backup1 --dry-run"),
                    ("Move all to one storage, without a question:", "{prog} backup1 --to backup2 --yes"),
                    ("Only keep new machines away:", "{prog} backup1 --only-new"),
                ),
                (
                    _STORAGE,
                    OneOf(
                        Argument("--to", metavar="STORAGE", help="Move them there (default: spread by free space)."),
                        Argument("--only-new", action="store_true", help="Move no machine."),
                    ),
                    machine_life.KEEP_UNTIL,
                    common.DRY_RUN,
                    common.YES,
                ),
                "Moved machines begin a new history. The old one stays until its end, as with 'machine move'.",
            ),
            _simple("undrain", "Let a drained storage get new machines again.", _undrain),
            Command(
                "remove",
                "Remove a storage that has no machines and no history.",
                configured(_remove),
                (
                    ("Remove a drained storage whose histories have ended:", "{prog} backup1"),
                    ("Remove one whose disks are lost:", "{prog} backup1 --abandon-histories"),
                    ("Remove one after it was drained:", "turku-api storage drain backup1 --yes && {prog} backup1"),
                ),
                (
                    _STORAGE,
                    Argument(
                        "--abandon-histories",
                        action="store_true",
                        help="Remove it although it keeps history of machines that were moved or removed.",
                    ),
                ),
                "It is refused when it comes back by its own timer, until an operator readmits it. Nothing on its "
                "disks is touched.",
            ),
            _simple("readmit", "Take a removed storage back, with its identity.", _readmit),
        ),
        (
            ("Show all storages:", "{prog} list"),
            ("Move the machines of one to the others:", "{prog} drain backup1 --dry-run"),
            ("Remove it when it is empty:", "{prog} remove backup1"),
        ),
    ),
)
