"""``turku-agent snapshots``, ``ls``, ``versions``, ``find`` and ``diff``: what is kept of this machine, shown."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC
from typing import TYPE_CHECKING, Any

from turku.core.cli import listing
from turku.core.cli.arguments import Parser
from turku.core.cli.listing import Say
from turku.core.clock import SYSTEM_CLOCK
from turku.core.log import one_line
from turku.errors import InvalidValue, UsageError

if TYPE_CHECKING:
    from turku.agent.config.model import AgentConfig
    from turku.protocol.messages import SourceOrder
    from turku.protocol.restore_messages import Answer, SnapshotChoice

_DEFAULT_LIMIT = 10_000
_LIMIT = 10_000_000
_LATEST = "latest"


def add(subcommands: argparse._SubParsersAction[Parser], add_common: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add the subcommands; what each runs is ``run``."""
    snapshots = _add(subcommands, "snapshots", "show the snapshots of a source, or of all", add_common)
    snapshots.add_argument("source", nargs="?", metavar="SOURCE")
    ls = _add(subcommands, "ls", "show what a directory had in it", add_common)
    ls.add_argument("source", metavar="SOURCE[@SNAPSHOT]", help="of the latest snapshot, or of this one")
    ls.add_argument("path", nargs="?", default="", metavar="PATH", help="in the source; the source itself if left out")
    ls.add_argument("--recursive", "-r", action="store_true", help="everything below it too")
    ls.add_argument(
        "--unfinished", action="store_true", help="what there is of a source of which no backup was finished yet"
    )
    add_choice(ls, with_snapshot=False)
    versions = _add(subcommands, "versions", "show every version of a path that is kept", add_common)
    versions.add_argument("source", metavar="SOURCE")
    versions.add_argument("path", metavar="PATH")
    find = _add(subcommands, "find", "search the names of all that is kept", add_common)
    find.add_argument("source", metavar="SOURCE[@SNAPSHOT]", help="in all snapshots, or in this one")
    find.add_argument(
        "pattern", metavar="PATTERN", help="a part of a name, or '*.odt'; with a slash, of the whole path"
    )
    find.add_argument("--ignore-case", "-i", action="store_true", help="capital letters are the same as small ones")
    add_choice(find, with_snapshot=False)
    diff = _add(subcommands, "diff", "show what differs between two snapshots", add_common)
    diff.add_argument("source", metavar="SOURCE")
    diff.add_argument("before", metavar="SNAPSHOT1", help="a name, or a time such as '3 days ago'")
    diff.add_argument("after", nargs="?", default=_LATEST, metavar="SNAPSHOT2", help="the latest if left out")
    for parser in (ls, versions, find, diff):
        parser.add_argument(
            "--limit",
            type=_limit,
            default=_DEFAULT_LIMIT,
            metavar="ROWS",
            help="at most so many (default: %(default)s)",
        )


def add_choice(parser: argparse.ArgumentParser, *, with_snapshot: bool = True) -> None:
    """Add the options by which a snapshot is chosen."""
    if with_snapshot:
        parser.add_argument(
            "--snapshot", metavar="NAME", help="the snapshot: its name, what tells it apart, or 'latest'"
        )
    parser.add_argument("--at", metavar="TIME", help="as it was then: '2026-11-01 12:00', '3 days ago', 'yesterday'")


def choice_of(name: str | None, at: str | None, *, is_unfinished: bool = False) -> SnapshotChoice:
    """The snapshot that is asked for. Raises UsageError."""
    from turku.protocol.restore_messages import SnapshotChoice

    if is_unfinished:
        if name is not None or at is not None:
            raise UsageError("--unfinished is for a source without any snapshot, of which none can be named")
        return SnapshotChoice(is_unfinished=True)
    if name is not None and at is not None:
        raise UsageError("a snapshot is chosen by its name or by a time, not by both")
    return SnapshotChoice(None if name == _LATEST else name, at)


def run(options: argparse.Namespace, agent: AgentConfig, say: Say) -> int:
    """The exit code of the subcommand."""
    from turku.agent import checkin
    from turku.agent.restore import browse
    from turku.protocol.restore_messages import BrowseRequest, wire_path

    if options.browse == "snapshots":
        return _Shown(options, say).snapshots(browse.snapshots(agent, options.source))
    active = checkin.active_sources(agent)
    source, snapshot = options.source, None
    if options.browse in ("ls", "find"):
        source, snapshot = browse.named_source(options.source, list(active))
    order: SourceOrder = browse.order_of(active, source)
    path = browse.path_in_source(agent, order, source, getattr(options, "path", ""))
    is_unfinished = getattr(options, "unfinished", False)
    first = choice_of(snapshot, getattr(options, "at", None), is_unfinished=is_unfinished)
    second = choice_of(None, None)
    if options.browse == "diff":
        first, second = _either(options.before), _either(options.after)
    request = BrowseRequest(
        options.browse,
        [source],
        snapshot=first,
        other=second,
        path=wire_path(path),
        pattern=wire_path(os.fsencode(getattr(options, "pattern", ""))),
        ignores_case=getattr(options, "ignore_case", False),
        is_recursive=getattr(options, "recursive", False),
        limit=options.limit,
    )
    return _Shown(options, say, source).rows(browse.rows(agent, request, order))


def _add(
    subcommands: argparse._SubParsersAction[Parser],
    name: str,
    description: str,
    add_common: Callable[[argparse.ArgumentParser], None],
) -> Parser:
    parser: Parser = subcommands.add_parser(name, help=description)
    add_common(parser)
    parser.add_argument("--json", action="store_true", help="as a JSON array, for programs")
    parser.set_defaults(browse=name)
    return parser


def _limit(text: str) -> int:
    value = int(text)
    if not 1 <= value <= _LIMIT:
        raise argparse.ArgumentTypeError(f"a number from 1 to {_LIMIT}")
    return value


def _either(text: str) -> SnapshotChoice:
    """A snapshot's name, or a time."""
    from turku.policy.timing import moments

    try:
        moments.parse(text, now=SYSTEM_CLOCK.now(), zone=UTC)
    except InvalidValue:
        return choice_of(text, None)
    return choice_of(None, text)


class _Shown:
    """Answers as a table in a terminal, as lines with tabs elsewhere, as JSON where it was asked for."""

    def __init__(self, options: argparse.Namespace, say: Say, source: str = "") -> None:
        self._options = options
        self._say = say
        self._source = source

    def snapshots(self, told: Iterable[tuple[str, Answer]]) -> int:
        from turku.protocol import history_listing
        from turku.protocol.restore_messages import SnapshotRow

        rows = ((storage, row) for storage, row in told if isinstance(row, SnapshotRow))
        if self._options.json:
            listing.array(
                ({"storage": storage, **history_listing.snapshot_object(row)} for storage, row in rows), self._say
            )
            return 0
        cells = ((storage, history_listing.snapshot_cells(row)) for storage, row in rows)
        *headings, marks = history_listing.SNAPSHOT_HEADINGS
        listing.show(
            (*headings, "storage", marks),
            ((*row[:-1], storage, row[-1]) for storage, row in cells),
            self._say,
            right=history_listing.SNAPSHOT_RIGHT,
            drop=("storage", *history_listing.SNAPSHOT_DROP),
        )
        return 0

    def rows(self, told: Iterator[Answer]) -> int:
        from turku.protocol.restore_messages import REMARK_LIMIT, BrowseEnd

        is_cut = False
        remarks: list[str] = []

        def kept() -> Iterator[Any]:
            nonlocal is_cut
            for answer in told:
                if isinstance(answer, BrowseEnd):
                    is_cut = answer.is_cut
                    remarks.extend(answer.remarks)
                else:
                    yield answer

        self._show(kept())
        for remark in remarks:
            print(f"note: {one_line(remark)[:REMARK_LIMIT]}", file=sys.stderr)  # noqa: T201
        if is_cut:
            print(f"there is more; --limit shows more than {self._options.limit:,}", file=sys.stderr)  # noqa: T201
        return 0

    def _show(self, rows: Iterator[Any]) -> None:
        from turku.protocol import history_listing

        zone, is_json = SYSTEM_CLOCK.now().astimezone().tzinfo or UTC, self._options.json
        if self._options.browse == "diff":
            history_listing.show_differences(rows, self._say, is_json=is_json)
        elif self._options.browse == "ls":
            history_listing.show_files(rows, self._say, zone=zone, is_json=is_json)
        else:
            history_listing.show_versions(
                rows,
                self._say,
                zone=zone,
                is_json=is_json,
                snapshot_name=self._short if sys.stdout.isatty() else str,
            )

    def _short(self, name: str) -> str:
        """What tells a snapshot from the others, by which it can be named as well."""
        return name.removeprefix(f"{self._source}_")
