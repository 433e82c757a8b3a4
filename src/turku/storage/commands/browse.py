"""``turku-storage snapshots``, ``ls``, ``versions``, ``find`` and ``diff``: browse the snapshots of all machines."""

import argparse
import os
from collections.abc import Collection

from turku.browse import arguments, output
from turku.core.cli.listing import Say
from turku.core.clock import Clock
from turku.errors import InvalidValue, NotInHistory, UsageError
from turku.protocol.restore_messages import SnapshotChoice
from turku.storage import catalog
from turku.storage.catalog import Catalog
from turku.storage.commands.setup import MACHINE, configured, known_columns, machine_names, require_volumes, selected
from turku.storage.config.model import StorageConfig, StorageState
from turku.storage.disk import history, machine_links
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.disk.source_lookup import find_sources, no_history
from turku.storage.restore import browse, history_rows

_NAMED = 10


def run(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    """Return the exit code of the subcommand that ``options.command`` names."""
    if options.command == "snapshots":
        return _snapshots(options, configuration, clock, say)
    places = find_sources(configuration, machine=options.machine)
    source, snapshot = arguments.source_and_snapshot(options, {place.source for place in places})
    place = _the_one(places, source, options.machine, configuration)
    first, second = SnapshotChoice(snapshot, getattr(options, "at", None)), SnapshotChoice()
    if options.command == "diff":
        first, second = SnapshotChoice(options.before), SnapshotChoice(options.after)
    path = os.fsencode(getattr(options, "path", ""))
    request = arguments.request(options, source, path, snapshot=first, other=second)
    with catalog.open_catalog(place, zone=configuration.state.timezone) as opened:

        def choose(choice: SnapshotChoice) -> str:
            return _snapshot_name(opened, choice, configuration.state, clock)

        with output.limited(browse.catalog_rows(opened, request, choose), options.limit) as rows:
            output.show(options.command, rows, say, zone=configuration.state.timezone, is_json=options.json)
    return 0


def _snapshots(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    zone = configuration.state.timezone
    machine_name = str if options.json else machine_names(configuration)
    found = (
        (machine_name(place.machine_dir.name), row)
        for place in selected(options, configuration)
        for row in history_rows.snapshot_rows(place, history.stored_snapshots(place, zone), zone, now=clock.now())
    )
    with output.limited(found, options.limit) as rows:
        output.show_snapshots(rows, say, owner="machine", is_json=options.json, known=known_columns(options))
    require_volumes(options, configuration)
    return 0


def _the_one(
    places: Collection[SourceDirectory], source: str, machine: str | None, configuration: StorageConfig
) -> SourceDirectory:
    """Return the place of the source. Raises UsageError if several machines have one, and as ``no_history``."""
    found = [place for place in places if place.source == source]
    if not found:
        raise no_history(configuration, source, places, machine=machine)
    if len(found) > 1:
        names = machine_links.known_names(configuration.state)
        first = [place.machine_dir.name for place in found[:_NAMED]]
        named = ", ".join(" or ".join([*sorted(names.get(uuid, ())), uuid]) for uuid in first)
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise UsageError(
            f"{len(found)} machines have a source {source}: {named}{more}",
            hint="say which one is meant: --machine UUID or NAME",
        )
    return found[0]


def _snapshot_name(opened: Catalog, choice: SnapshotChoice, configuration: StorageState, clock: Clock) -> str:
    """Return the name of the snapshot that is meant. A text that is in no snapshot's name is a time."""
    snapshots, name = opened.snapshots(), choice.name
    now, zone = clock.now(), configuration.timezone
    if name and name != arguments.LATEST and not choice.at and all(name not in each.name for each in snapshots):
        try:
            return catalog.choose(snapshots, at=name, now=now, zone=zone)
        except InvalidValue as error:
            raise NotInHistory(
                f"{name!r} is neither a snapshot of {opened.place.source} nor a time",
                hint=f"'turku-storage snapshots' shows them; a time is {error.hint}",
            ) from error
    return catalog.choose(snapshots, name=name, at=choice.at, now=now, zone=zone)


COMMANDS = arguments.commands(configured(run), default_limit=None, for_all=(MACHINE,))
