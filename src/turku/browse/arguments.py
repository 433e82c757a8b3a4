"""The five commands that browse history, as ``turku-agent`` and ``turku-storage`` both have them."""

import argparse
import os
from collections.abc import Collection

from turku.core.cli import options as common
from turku.core.cli.program import Argument, Arguments, Command, Run
from turku.errors import UsageError
from turku.protocol.restore_messages import BrowseRequest, SnapshotChoice, wire_path

LATEST = "latest"
_PATH_HELP = "Path relative to the source."


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
    if options.command not in ("ls", "find") or text in known or "@" not in text:
        return text, None
    source, _at, snapshot = text.rpartition("@")
    return source, snapshot


def request(
    options: argparse.Namespace, source: str, path: bytes, *, snapshot: SnapshotChoice, other: SnapshotChoice
) -> BrowseRequest:
    """Return the message that asks for what was typed."""
    return BrowseRequest(
        options.command,
        [source],
        snapshot=snapshot,
        other=other,
        path=wire_path(path),
        pattern=wire_path(os.fsencode(getattr(options, "pattern", ""))),
        ignores_case=getattr(options, "ignore_case", False),
        is_recursive=getattr(options, "recursive", False),
        limit=options.limit or common.LARGEST_LIMIT,
    )


def commands(
    run: Run, *, default_limit: int | None, for_all: Arguments = (), for_ls: Arguments = ()
) -> tuple[Command, ...]:
    """Return the five commands. ``options.command`` is the name of the one that was typed.

    ``for_all`` and ``for_ls`` are options that one side alone has.
    """
    shared = (*for_all, common.JSON, common.limit(default_limit))
    return (
        Command(
            "snapshots",
            "Show the snapshots of a source, or of all sources.",
            run,
            (
                ("Show all snapshots:", "{prog}"),
                ("Show those of one source:", "{prog} home"),
                ("Print only the names:", "{prog} home --json | jq -r '.[].snapshot'"),
            ),
            (Argument("source", nargs="?", metavar="SOURCE", help="Source to show (default: all)."), *shared),
        ),
        Command(
            "ls",
            "Show what a directory contained.",
            run,
            (
                ("Show the top directory in the latest snapshot:", "{prog} home"),
                ("Show a directory as it was three days ago:", "{prog} home alice --at '3 days ago'"),
                ("Show everything in one snapshot:", "{prog} home@home_20261101-020000_1a2b -r"),
            ),
            (
                Argument("source", metavar="SOURCE[@SNAPSHOT]", help="Source, and snapshot (default: the latest)."),
                Argument("path", nargs="?", default="", metavar="PATH", help=f"{_PATH_HELP} Default: all of it."),
                Argument("--recursive", "-r", action="store_true", help="Show everything below the directory."),
                common.AT,
                *for_ls,
                *shared,
            ),
        ),
        Command(
            "versions",
            "Show every version of a path that snapshots have.",
            run,
            (
                ("Show the versions of a file:", "{prog} home alice/offer.odt"),
                ("Show when a directory changed its mode or owner:", "{prog} home alice"),
                ("Print only the checksums:", "{prog} home alice/offer.odt --json | jq -r '.[].checksum'"),
            ),
            (
                Argument("source", metavar="SOURCE", help="Source that has the path."),
                Argument("path", metavar="PATH", help=_PATH_HELP),
                *shared,
            ),
        ),
        Command(
            "find",
            "Search all snapshots of a source for a name.",
            run,
            (
                ("Find every file whose name contains a word:", "{prog} home invoice"),
                ("Find by a pattern, in small and capital letters:", "{prog} home '*.odt' -i"),
                ("Search one day's snapshot below one directory:", "{prog} home 'alice/*.odt' --at 2026-11-01"),
            ),
            (
                Argument("source", metavar="SOURCE[@SNAPSHOT]", help="Source, and snapshot (default: all)."),
                Argument(
                    "pattern",
                    metavar="PATTERN",
                    help="Part of a name, or '*.odt'. With a slash, it stands for the whole path.",
                ),
                Argument(
                    "--ignore-case", "-i", action="store_true", help="Do not distinguish capital and small letters."
                ),
                common.AT,
                *shared,
            ),
        ),
        Command(
            "diff",
            "Show what differs between two snapshots.",
            run,
            (
                ("Show what changed since yesterday:", "{prog} etc yesterday"),
                ("Compare two days:", "{prog} etc 2026-11-01 2026-11-08"),
                ("Compare two snapshots by their names:", "{prog} etc etc_20261101-020000_1a2b latest"),
            ),
            (
                Argument("source", metavar="SOURCE", help="Source of both snapshots."),
                Argument("before", metavar="SNAPSHOT1", help="Earlier snapshot: a name, or a time like '3 days ago'."),
                Argument(
                    "after", nargs="?", default=LATEST, metavar="SNAPSHOT2", help="Later one (default: the latest)."
                ),
                *shared,
            ),
        ),
    )
