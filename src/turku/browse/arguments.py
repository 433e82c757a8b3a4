"""The five commands that browse history, as ``turku-agent`` and ``turku-storage`` both have them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection
from dataclasses import dataclass

from turku.core.cli import options as common
from turku.core.cli.arguments import Example, Parser
from turku.core.cli.program import AddArguments, Command, Run
from turku.errors import UsageError
from turku.protocol.restore_messages import BrowseRequest, SnapshotChoice, wire_path

LATEST = "latest"
_PATH_HELP = "Path relative to the source."


@dataclass(frozen=True)
class BrowseCommand:
    """The particulars of one of the five commands."""

    summary: str
    add_arguments: AddArguments
    examples: tuple[Example, ...]
    details: str = ""


def commands(run: Run, *, add_to_all: AddArguments, add_to_ls: AddArguments) -> tuple[Command, ...]:
    """Return the five commands. ``options.browse`` is the name of the one that was typed.

    ``add_to_all`` and ``add_to_ls`` add the options that one side alone has.
    """

    def with_side_options(name: str, declared: BrowseCommand) -> AddArguments:
        def add(parser: Parser) -> None:
            declared.add_arguments(parser)
            if name == "ls":
                add_to_ls(parser)
            add_to_all(parser)
            common.add_json(parser)
            common.add_limit(parser)
            parser.set_defaults(browse=name)

        return add

    return tuple(
        Command(name, each.summary, run, each.examples, with_side_options(name, each), each.details)
        for name, each in _COMMANDS.items()
    )


def snapshot_choice(name: str | None, at: str | None, *, is_unfinished: bool = False) -> SnapshotChoice:
    """Return the choice that ``--snapshot``, ``--at`` and ``--unfinished`` make. Raises UsageError."""
    if is_unfinished:
        if name is not None or at is not None:
            raise UsageError("--unfinished is for a source without any snapshot, so that none can be named")
        return SnapshotChoice(is_unfinished=True)
    if name is not None and at is not None:
        raise UsageError("a snapshot is chosen by its name or by a time, not by both")
    return SnapshotChoice(None if name == LATEST else name, at)


def source_and_snapshot(options: argparse.Namespace, known: Collection[str]) -> tuple[str, str | None]:
    """Return source and snapshot of ``SOURCE[@SNAPSHOT]``. A source's own name may have an ``@`` in it."""
    text: str = options.source
    if options.browse not in ("ls", "find") or text in known or "@" not in text:
        return text, None
    source, _at, snapshot = text.rpartition("@")
    return source, snapshot


def request(
    options: argparse.Namespace, source: str, path: bytes, *, snapshot: SnapshotChoice, other: SnapshotChoice
) -> BrowseRequest:
    """Return the message that asks for what was typed."""
    return BrowseRequest(
        options.browse,
        [source],
        snapshot=snapshot,
        other=other,
        path=wire_path(path),
        pattern=wire_path(os.fsencode(getattr(options, "pattern", ""))),
        ignores_case=getattr(options, "ignore_case", False),
        is_recursive=getattr(options, "recursive", False),
        limit=options.limit,
    )


def _snapshots(parser: Parser) -> None:
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="Source to show (default: all).")


def _ls(parser: Parser) -> None:
    parser.add_argument("source", metavar="SOURCE[@SNAPSHOT]", help="Source, and snapshot (default: the latest).")
    parser.add_argument("path", nargs="?", default="", metavar="PATH", help=f"{_PATH_HELP} Default: all of it.")
    parser.add_argument("--recursive", "-r", action="store_true", help="Show everything below the directory.")
    common.add_at(parser)


def _versions(parser: Parser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="Source that has the path.")
    parser.add_argument("path", metavar="PATH", help=_PATH_HELP)


def _find(parser: Parser) -> None:
    parser.add_argument("source", metavar="SOURCE[@SNAPSHOT]", help="Source, and snapshot (default: all).")
    parser.add_argument(
        "pattern", metavar="PATTERN", help="Part of a name, or '*.odt'. With a slash, it stands for the whole path."
    )
    parser.add_argument(
        "--ignore-case", "-i", action="store_true", help="Do not distinguish capital and small letters."
    )
    common.add_at(parser)


def _diff(parser: Parser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="Source of both snapshots.")
    parser.add_argument("before", metavar="SNAPSHOT1", help="Name of a snapshot, or a time such as '3 days ago'.")
    parser.add_argument("after", nargs="?", default=LATEST, metavar="SNAPSHOT2", help="Likewise (default: the latest).")


_COMMANDS = {
    "snapshots": BrowseCommand(
        "Show the snapshots of a source, or of all sources.",
        _snapshots,
        (
            ("Show all snapshots:", "{prog}"),
            ("Show those of one source:", "{prog} home"),
            ("Print the names alone:", "{prog} home --json | jq -r '.[].snapshot'"),
        ),
    ),
    "ls": BrowseCommand(
        "Show what a directory contained.",
        _ls,
        (
            ("Show the top directory in the latest snapshot:", "{prog} home"),
            ("Show a directory as it was three days ago:", "{prog} home alice --at '3 days ago'"),
            ("Show everything in one snapshot:", "{prog} home@home_20261101-020000_1a2b -r"),
        ),
    ),
    "versions": BrowseCommand(
        "Show every version of a path that is kept.",
        _versions,
        (
            ("Show the versions of a file:", "{prog} home alice/offer.odt"),
            ("Show when a directory changed its mode or owner:", "{prog} home alice"),
            ("Print the checksums alone:", "{prog} home alice/offer.odt --json | jq -r '.[].checksum'"),
        ),
    ),
    "find": BrowseCommand(
        "Search all snapshots of a source for a name.",
        _find,
        (
            ("Find every file whose name contains a word:", "{prog} home invoice"),
            ("Find by a pattern, in small and capital letters:", "{prog} home '*.odt' -i"),
            ("Search one day's snapshot below one directory:", "{prog} home 'alice/*.odt' --at 2026-11-01"),
        ),
    ),
    "diff": BrowseCommand(
        "Show what differs between two snapshots.",
        _diff,
        (
            ("Show what changed since yesterday:", "{prog} etc yesterday"),
            ("Compare two days:", "{prog} etc 2026-11-01 2026-11-08"),
            ("Compare two snapshots by their names:", "{prog} etc etc_20261101-020000_1a2b latest"),
        ),
    ),
}
