"""``turku-storage catalog update|rebuild``: bring the catalogs up to date, or make them anew from the trees."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from turku.storage.commands import trash

if TYPE_CHECKING:
    from turku.storage.config.configuration import StorageConfig

Say = Callable[[str], None]


def add(parser: argparse.ArgumentParser, add_directory: Callable[[argparse.ArgumentParser], None]) -> None:
    """Give the parser its subcommands."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    update = actions.add_parser("update", help="read snapshots that are in no catalog yet, such as an older storage's")
    rebuild = actions.add_parser("rebuild", help="read every tree again; checksums, and what was verified, are lost")
    for action in (update, rebuild):
        add_directory(action)
        trash.add_source(action)


def run(options: argparse.Namespace, configuration: StorageConfig, say: Say) -> int:
    """The exit code: 0 when every catalog is as its snapshots are."""
    from turku.storage import catalog
    from turku.storage.disk.source_lookup import find_sources, locked

    for place in find_sources(configuration, machine=options.machine, source=options.source):
        if options.action == "rebuild":
            with locked(place):
                catalog.rebuild(place, zone=configuration.zone)
        with catalog.open_catalog(place, zone=configuration.zone) as opened:
            count = len(opened.snapshots())
        say(f"{place.machine_dir.name}  {place.source}: {count} snapshot{'' if count == 1 else 's'}")
    return 0
