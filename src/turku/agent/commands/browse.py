"""``turku-agent snapshots``, ``ls``, ``versions``, ``find`` and ``diff``: browse the snapshots of this machine."""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC
from typing import Any

from turku.agent import checkin
from turku.agent.commands.setup import configured
from turku.agent.config.model import AgentConfig
from turku.agent.restore import browse
from turku.browse import arguments, output
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument
from turku.core.clock import SYSTEM_CLOCK
from turku.core.log import one_line
from turku.errors import InvalidValue
from turku.policy.timing import moments
from turku.protocol.restore_messages import REMARK_LIMIT, Answer, BrowseEnd, SnapshotChoice, SnapshotRow

_DEFAULT_LIMIT = 10_000
"""Rows that a storage sends for one listing, unless more are asked for."""
_PART_OF_NAME = re.compile(r"\d{8}[\d-]*", re.ASCII)
"""The beginning of the date in a snapshot's name, which would be a time in ISO form as well."""
UNFINISHED = Argument(
    "--unfinished", action="store_true", help="Use what arrived of a source that has no finished backup yet."
)

STORAGE = Argument(
    "--storage",
    metavar="STORAGE",
    help="Storage to ask, such as the one that backed this machine up before it was moved (default: the present one).",
)


def run(options: argparse.Namespace, agent: AgentConfig, say: Say) -> int:
    """Return the exit code of the subcommand that ``options.command`` names."""
    if options.command == "snapshots":
        return _snapshots(options, agent, say)
    restorable = checkin.restorable_sources(agent).on(options.storage)
    active = restorable.sources
    source, snapshot = arguments.source_and_snapshot(options, active)
    order = browse.order_of(active, source)
    path = browse.path_in_source(agent, order, source, getattr(options, "path", ""))
    is_unfinished = getattr(options, "unfinished", False)
    first = arguments.snapshot_choice(snapshot, getattr(options, "at", None), is_unfinished=is_unfinished)
    second = arguments.snapshot_choice(None, None)
    if options.command == "diff":
        first, second = _name_or_time(options.before), _name_or_time(options.after)
    request = arguments.request(options, source, path, snapshot=first, other=second)
    with restorable.naming_former_storages():
        return _show(options, browse.rows(agent, request, order), say, source)


def _name_or_time(text: str) -> SnapshotChoice:
    if _PART_OF_NAME.fullmatch(text):
        return arguments.snapshot_choice(text, None)
    try:
        moments.parse(text, now=SYSTEM_CLOCK.now(), zone=UTC)
    except InvalidValue:
        return arguments.snapshot_choice(text, None)
    return arguments.snapshot_choice(None, text)


def _snapshots(options: argparse.Namespace, agent: AgentConfig, say: Say) -> int:
    found = browse.snapshots(agent, options.source, options.storage)
    rows = ((storage, answer) for storage, answer in found if isinstance(answer, SnapshotRow))
    with output.limited(rows, options.limit) as shown:
        known = ("source",) if options.source else ()
        output.show_snapshots(shown, say, owner="storage", is_json=options.json, known=known)
    return 0


def _show(options: argparse.Namespace, answers: Iterable[Answer], say: Say, source: str) -> int:
    ends: list[BrowseEnd] = []

    def rows() -> Iterator[Any]:
        for answer in answers:
            if isinstance(answer, BrowseEnd):
                ends.append(answer)
            else:
                yield answer

    def short(name: str) -> str:
        # The rest tells a snapshot from the others, and can be typed in place of its name.
        return name.removeprefix(f"{source}_") if sys.stdout.isatty() else name

    zone = SYSTEM_CLOCK.now().astimezone().tzinfo or UTC
    output.show(options.command, rows(), say, zone=zone, is_json=options.json, snapshot_name=short)
    for end in ends:
        for remark in end.remarks:
            print(f"note: {one_line(remark)[:REMARK_LIMIT]}", file=sys.stderr)  # noqa: T201
        if end.is_cut:
            output.warn_of_more(options.limit)
    return 0


COMMANDS = arguments.commands(
    configured(run, is_settled=True), default_limit=_DEFAULT_LIMIT, for_all=(STORAGE,), for_ls=(UNFINISHED,)
)
