"""``turku-storage retention``: show which snapshots stay, by which rules and until when, and remove the others."""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from turku.core.cli import listing
from turku.core.cli import options as common
from turku.core.cli.listing import Say
from turku.core.cli.output import json_text
from turku.core.cli.program import Command
from turku.core.clock import Clock
from turku.core.units import count_of
from turku.errors import InvalidValue, LockHeld
from turku.storage import catalog
from turku.storage.commands.setup import EXIT_PROBLEMS, SELECTION, configured, known_columns, machine_names, selected
from turku.storage.config.model import StorageConfig
from turku.storage.disk import former_machines, retention_rules, retention_run, trash
from turku.storage.disk.retention_run import RetainedSnapshot
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.disk.source_lookup import locked

_HEADINGS = ("machine", "source", "snapshot", "action", "until", "kept by")
_FORMER = "the machine was moved or removed"
_LOG = logging.getLogger(__name__)


def run(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    """Print a row for each snapshot. Return 1 where a source was skipped."""
    now = clock.now()
    places = selected(options, configuration)
    found: list[tuple[SourceDirectory, RetainedSnapshot]] = []
    skipped = 0
    for place in places:
        try:
            rows = _review(place, configuration, now) if options.dry_run else _apply(place, configuration, now)
        except (InvalidValue, LockHeld) as error:
            if len(places) == 1:
                raise
            skipped += 1
            _LOG.error("%s of %s: skipped: %s", place.source, place.machine_dir.name, error.message)
            continue
        found += [(place, row) for row in rows]
    _show(found, options, configuration, say)
    return EXIT_PROBLEMS if skipped else 0


def _review(place: SourceDirectory, configuration: StorageConfig, now: datetime) -> Sequence[RetainedSnapshot]:
    rows = retention_run.review(place, retention_rules.read(place), configuration, now=now)
    if place.machine_dir.name not in former_machines.read(configuration.state):
        return rows
    # Nothing new is made, so that rules would remove one snapshot after the other.
    return [replace(row, reasons=(*row.reasons, _FORMER), until=None) for row in rows]


def _apply(place: SourceDirectory, configuration: StorageConfig, now: datetime) -> Sequence[RetainedSnapshot]:
    with locked(place):
        rows = _review(place, configuration, now)
        removed = [each.name for each in rows if not each.reasons]
        if removed:
            retention_run.remove(place, removed, configuration.retention, now=now)
            catalog.forget(place, zone=configuration.state.timezone)
            trash.remove_stray_records(place)
    return rows


def _show(
    found: Sequence[tuple[SourceDirectory, RetainedSnapshot]],
    options: argparse.Namespace,
    configuration: StorageConfig,
    say: Say,
) -> None:
    if options.json:
        say(json_text([_as_object(place, row, is_dry_run=options.dry_run) for place, row in found], indent=4))
        return
    zone, machine_name = configuration.state.timezone, machine_names(configuration)
    listing.show(
        _HEADINGS,
        (
            (
                machine_name(place.machine_dir.name),
                place.source,
                row.name,
                "keep" if row.reasons else "remove" if options.dry_run else "removed",
                "" if row.until is None else f"{row.until.astimezone(zone):%Y-%m-%d %H:%M}",
                ", ".join(row.reasons),
            )
            for place, row in found
        ),
        say,
        drop=("source",),
        known=known_columns(options),
        empty="no snapshots",
    )
    if not options.dry_run:
        _LOG.info("retention removed %s", count_of(sum(not row.reasons for _place, row in found), "snapshot"))


def _as_object(place: SourceDirectory, row: RetainedSnapshot, *, is_dry_run: bool) -> dict[str, Any]:
    return {
        "machine": place.machine_dir.name,
        "source": place.source,
        "snapshot": row.name,
        "moment": None if row.moment is None else row.moment.isoformat(),
        "is_kept": bool(row.reasons),
        "is_removed": not row.reasons and not is_dry_run,
        "reasons": list(row.reasons),
        "until": None if row.until is None else row.until.isoformat(),
    }


COMMANDS = (
    Command(
        "retention",
        "Show which snapshots stay, by which rules and until when, and remove the others.",
        configured(run, needs_all_volumes=True),
        (
            ("Show what the rules keep, and change nothing:", "{prog} --dry-run"),
            ("Apply the rules of one source now:", "{prog} --machine web/0 --source etc"),
            ("Print what would be removed, for programs:", "{prog} -n --json | jq '.[]|select(.is_kept|not)'"),
        ),
        (*SELECTION, common.DRY_RUN, common.JSON),
        "Removed snapshots go to the trash, as after a backup. The rules are those of the last successful backup: the "
        "source's own, the coordinator's floor, and retention_floor of this storage. A snapshot stays where any rule "
        "keeps it. The column 'until' has the moment from which the next backup removes it, if backups succeed as "
        "scheduled. It is empty where no moment is known. A source loses nothing while one of its snapshots is in "
        "quarantine, or as long as no backup recorded its rules.",
        {1: "A source was skipped: it is being backed up, or its rules are not valid."},
    ),
)
