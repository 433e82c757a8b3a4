"""``turku-storage catalog update|rebuild``: bring catalogs up to date, or make them anew from the snapshots."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from turku.core.cli.listing import Say
from turku.core.cli.program import Command, CommandGroup
from turku.storage.commands.setup import add_selection, configured

if TYPE_CHECKING:
    from turku.core.clock import Clock
    from turku.storage.config.model import StorageConfig


def run(options: argparse.Namespace, configuration: StorageConfig, _clock: Clock, say: Say, *, rebuilds: bool) -> int:
    """Open each catalog, which brings it up to date, and rebuild it first where that is asked."""
    from turku.storage import catalog
    from turku.storage.disk.source_lookup import find_sources, locked

    for place in find_sources(configuration, machine=options.machine, source=options.source):
        if rebuilds:
            with locked(place):
                catalog.rebuild(place, zone=configuration.state.timezone)
        with catalog.open_catalog(place, zone=configuration.state.timezone) as opened:
            count = len(opened.snapshots())
        say(f"{place.machine_dir.name}  {place.source}: {count} snapshot{'' if count == 1 else 's'}")
    return 0


COMMAND = CommandGroup(
    "catalog",
    "Update or rebuild the catalogs, which know what each snapshot contains.",
    (
        Command(
            "update",
            "Read snapshots that are in no catalog yet, such as those of an older storage.",
            configured(partial(run, rebuilds=False), needs_all_volumes=True),
            (
                ("Update all catalogs:", "{prog}"),
                ("Update those of one machine:", "{prog} --machine web-1"),
                ("Update that of one source:", "{prog} --machine web-1 --source etc"),
            ),
            add_selection,
        ),
        Command(
            "rebuild",
            "Read every snapshot again. The checksums, and what was verified, are lost.",
            configured(partial(run, rebuilds=True), needs_all_volumes=True),
            (
                ("Rebuild that of one source:", "{prog} --machine web-1 --source etc"),
                ("Rebuild those of one machine:", "{prog} --machine web-1"),
                ("Rebuild all catalogs:", "{prog}"),
            ),
            add_selection,
        ),
    ),
    (
        ("Update all catalogs:", "{prog} update"),
        ("Update those of one machine:", "{prog} update --machine web-1"),
        ("Rebuild that of one source:", "{prog} rebuild --machine web-1 --source etc"),
    ),
)
