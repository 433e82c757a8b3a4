"""``turku-storage snapshots``, ``ls``, ``versions``, ``find`` and ``diff``: what is kept, shown to the operator."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from turku.errors import UsageError
from turku.policy.machine_choice import MACHINE_HELP

if TYPE_CHECKING:
    from turku.core.cli.arguments import Parser
    from turku.core.cli.listing import Say
    from turku.core.clock import Clock
    from turku.protocol.restore_messages import FileRow
    from turku.storage.catalog import Catalog, CatalogEntry
    from turku.storage.config.configuration import StorageConfig
    from turku.storage.disk.source_directory import SourceDirectory

NAMES = ("snapshots", "ls", "versions", "find", "diff")
_LATEST = "latest"
_NAMED = 10

_AddDirectory = Callable[[argparse.ArgumentParser], None]


def add(commands: argparse._SubParsersAction[Parser], add_directory: _AddDirectory) -> None:
    """Add the five subcommands."""
    snapshots = _add(commands, "snapshots", "show the snapshots of a source, or of all", add_directory)
    snapshots.add_argument("source", nargs="?", metavar="SOURCE")
    ls = _add(commands, "ls", "show what a directory had in it", add_directory)
    ls.add_argument("source", metavar="SOURCE[@SNAPSHOT]", help="of the latest snapshot, or of this one")
    ls.add_argument("path", nargs="?", default="", metavar="PATH", help="relative to the source; all of it if left out")
    ls.add_argument("--recursive", "-r", action="store_true", help="everything below it too")
    versions = _add(commands, "versions", "show every version of a path", add_directory)
    versions.add_argument("source", metavar="SOURCE")
    versions.add_argument("path", metavar="PATH", help="relative to the source")
    find = _add(commands, "find", "search all snapshots of a source for a name", add_directory)
    find.add_argument("source", metavar="SOURCE[@SNAPSHOT]", help="in all snapshots, or in this one")
    find.add_argument(
        "pattern", metavar="PATTERN", help="a part of a name, or '*.odt'; with a slash, of the whole path"
    )
    find.add_argument("--ignore-case", "-i", action="store_true", help="capital letters are the same as small ones")
    diff = _add(commands, "diff", "show what differs between two snapshots", add_directory)
    diff.add_argument("source", metavar="SOURCE")
    diff.add_argument("before", metavar="SNAPSHOT1", help="a name, or a time")
    diff.add_argument("after", nargs="?", default=_LATEST, metavar="SNAPSHOT2", help="the latest if left out")
    for parser in (ls, find):
        parser.add_argument("--at", metavar="TIME", help="as it was at '2026-11-01 12:00', 'yesterday', '3 days ago'")


def _add(
    commands: argparse._SubParsersAction[Parser], name: str, description: str, add_directory: _AddDirectory
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=description)
    add_directory(parser)
    parser.add_argument("--machine", metavar="MACHINE", help=f"of this machine: {MACHINE_HELP}")
    parser.add_argument("--json", action="store_true", help="as a JSON array, for programs")
    return parser


def run(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    """The exit code of the subcommand that ``options.command`` names."""
    shown = _Shown(options, configuration, clock, say)
    if options.command == "snapshots":
        shown.snapshots()
        return 0
    place, snapshot = _place(configuration, options)
    from turku.storage import catalog

    with catalog.open_catalog(place, zone=configuration.zone) as opened:
        getattr(shown, options.command)(opened, snapshot)
    return 0


def _place(configuration: StorageConfig, options: argparse.Namespace) -> tuple[SourceDirectory, str | None]:
    """The one source that is meant, and the snapshot named with it."""
    from turku.storage.disk.source_lookup import find_sources

    places = find_sources(configuration, machine=options.machine)
    wanted, snapshot = options.source, None
    found = [place for place in places if place.source == wanted]
    if not found and "@" in wanted and options.command in ("ls", "find"):
        # The source's own name may have an '@' in it.
        wanted, _at, snapshot = wanted.rpartition("@")
        found = [place for place in places if place.source == wanted]
    if not found:
        known = sorted({place.source for place in places})
        raise UsageError(
            f"there is no history of a source {wanted}" + (f" of {options.machine}" if options.machine else ""),
            hint=f"there is {', '.join(known[:20])}" if known else "nothing was backed up yet",
        )
    if len(found) > 1:
        from turku.storage.disk import machine_links

        names = machine_links.known_names(configuration)
        first = [place.machine_dir.name for place in found[:_NAMED]]
        named = ", ".join(" or ".join([*sorted(names.get(uuid, ())), uuid]) for uuid in first)
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise UsageError(
            f"{len(found)} machines have a source {wanted}: {named}{more}",
            hint="say which one is meant: --machine UUID or NAME",
        )
    return found[0], snapshot


class _Shown:
    """What the options ask for, as a table or as JSON."""

    def __init__(self, options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> None:
        self._options = options
        self._zone = configuration.zone
        self._configuration = configuration
        self._clock = clock
        self._say = say

    def snapshots(self) -> None:
        from turku.core.cli import listing
        from turku.protocol import history_listing
        from turku.storage.disk import history
        from turku.storage.disk.source_lookup import find_sources
        from turku.storage.restore import history_rows

        places = find_sources(self._configuration, machine=self._options.machine, source=self._options.source)
        rows = (
            (place.machine_dir.name, row)
            for place in places
            for row in history_rows.of_snapshots(
                place, history.stored_snapshots(place, self._zone), self._zone, now=self._clock.now()
            )
        )
        if self._options.json:
            listing.array(
                ({"machine": machine, **history_listing.snapshot_object(row)} for machine, row in rows), self._say
            )
            return
        listing.show(
            ("machine", *history_listing.SNAPSHOT_HEADINGS),
            ((machine, *history_listing.snapshot_cells(row)) for machine, row in rows),
            self._say,
            right=history_listing.SNAPSHOT_RIGHT,
            drop=history_listing.SNAPSHOT_DROP,
        )

    def ls(self, opened: Catalog, snapshot: str | None) -> None:
        from turku.storage.restore import history_rows

        options = self._options
        chosen = self._choose(opened, snapshot, options.at)
        self._files(history_rows.of_directory(opened, chosen, _path(options.path), is_recursive=options.recursive))

    def versions(self, opened: Catalog, _snapshot: str | None) -> None:
        path = _path(self._options.path)
        if not path:
            raise UsageError("the source itself has no versions", hint="'snapshots' shows when it was backed up")
        versions = opened.history(path)
        if not versions:
            from turku.core.log import one_line
            from turku.errors import NotInHistory

            raise NotInHistory(f"no snapshot has {one_line(path)}", hint="'find' searches all snapshots for a name")
        self._versions(versions)

    def find(self, opened: Catalog, snapshot: str | None) -> None:
        from turku.storage.restore import history_rows

        options = self._options
        chosen = self._choose(opened, snapshot, options.at) if snapshot or options.at else None
        found = opened.find(os.fsencode(options.pattern), snapshot=chosen, ignore_case=options.ignore_case)
        if chosen is None:
            self._versions(found)
        else:
            self._files(map(history_rows.of_entry, found))

    def diff(self, opened: Catalog, _snapshot: str | None) -> None:
        from turku.protocol import history_listing
        from turku.storage.restore import history_rows

        before, after = (self._choose(opened, text, None) for text in (self._options.before, self._options.after))
        rows = map(history_rows.of_difference, opened.diff(before, after))
        history_listing.show_differences(rows, self._say, is_json=self._options.json)

    def _choose(self, opened: Catalog, name: str | None, at: str | None) -> str:
        """By name; a text that is no name is a time."""
        from turku.errors import InvalidValue
        from turku.storage import catalog

        snapshots = opened.snapshots()
        now = self._clock.now()
        if name and name != _LATEST and not at and all(each.name != name for each in snapshots):
            try:
                return catalog.choose(snapshots, at=name, now=now, zone=self._zone)
            except InvalidValue as error:
                raise UsageError(
                    f"{name!r} is neither a snapshot of {opened.place.source} nor a time",
                    hint=f"'turku-storage snapshots' shows them; a time is {error.hint}",
                ) from error
        return catalog.choose(snapshots, name=name, at=at, now=now, zone=self._zone)

    def _files(self, rows: Iterable[FileRow]) -> None:
        from turku.protocol import history_listing

        history_listing.show_files(rows, self._say, zone=self._zone, is_json=self._options.json)

    def _versions(self, entries: Iterable[CatalogEntry]) -> None:
        from turku.protocol import history_listing
        from turku.storage.restore import history_rows

        rows = map(history_rows.of_entry, entries)
        history_listing.show_versions(rows, self._say, zone=self._zone, is_json=self._options.json)


def _path(text: str) -> bytes:
    from turku.policy import names

    return names.path_inside(os.fsencode(text))
