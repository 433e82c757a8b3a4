"""``turku-storage verify`` and ``drill``: read stored files again and repair them, and prove that restores work."""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from turku.core import lock
from turku.core.cli import options as common
from turku.core.cli.arguments import number
from turku.core.cli.listing import Say
from turku.core.cli.output import json_text
from turku.core.cli.program import Argument, Command, OneOf
from turku.core.clock import Clock
from turku.core.kernel.process import lower_priority
from turku.core.log import one_line
from turku.core.units import count_of, size
from turku.errors import TurkuError
from turku.protocol.integrity_messages import SourceIntegrity, VerifyOutcome
from turku.storage.commands.setup import EXIT_PROBLEMS, SELECTION, configured, require_volumes, selected
from turku.storage.config.model import StorageConfig, StorageState
from turku.storage.disk.source_directory import SourceDirectory
from turku.storage.fs.stored_content import RateLimiter
from turku.storage.integrity import damage, drill_record, report, scrub, source_comparison
from turku.storage.integrity import drill as restore_drill
from turku.storage.integrity.drill_record import DrillResult
from turku.storage.integrity.report import Delivery
from turku.storage.integrity.scrub import ScrubResult, ScrubShare

_SHOWN_SNAPSHOTS = 5


def verify(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    """Verify the sources that were chosen. Return 1 where a damage stays, or a source could not be verified."""
    places = selected(options, configuration)
    if options.against_source:
        return _ask_for_comparison(places, configuration.state, say)
    if options.background:
        lower_priority()
    rate = configuration.integrity.verify_bytes_per_second if options.rate is None else options.rate * 1_000_000
    limiter = RateLimiter(rate, clock)
    found: list[dict[str, Any]] = []
    is_good = True
    with lock.exclusive(configuration.state.lock_dir, "verify"):
        end = None if options.budget is None else clock.monotonic_seconds() + options.budget
        for place, verified in _results(places, configuration.state, limiter, clock, percent=options.sample, end=end):
            if isinstance(verified, (TurkuError, OSError)):
                is_good = False
                say(f"{place.machine_dir.name}  {place.source}  NOT VERIFIED: {verified}")
                continue
            is_good = is_good and not verified.open_damages
            found.append(_scrub_object(verified, is_reported=_report(verified, configuration, clock)))
            if not options.json:
                _print_result(verified, say)
    if options.json:
        say(json_text(found, indent=4))
    elif not places:
        require_volumes(options, configuration)
        say("nothing is kept here")
    return 0 if is_good else EXIT_PROBLEMS


def _results(
    places: tuple[SourceDirectory, ...],
    configuration: StorageState,
    limiter: RateLimiter,
    clock: Clock,
    *,
    percent: float | None,
    end: float | None,
) -> Iterator[tuple[SourceDirectory, ScrubResult | TurkuError | OSError]]:
    """Yield each source with its result or error. A budget begins with the source that was verified longest ago."""
    if end is not None:
        places = tuple(sorted(places, key=scrub.last_run))
    for place in places:
        if end is not None and clock.monotonic_seconds() >= end:
            return
        try:
            yield (
                place,
                scrub.verify(
                    place,
                    zone=configuration.timezone,
                    share=ScrubShare(percent=percent or 100.0, until_seconds=end),
                    pace=limiter,
                    clock=clock,
                ),
            )
        except (TurkuError, OSError) as error:
            yield place, error


def _report(verified: ScrubResult, configuration: StorageConfig, clock: Clock) -> bool:
    place = verified.place
    outcome = VerifyOutcome(
        time=clock.now().timestamp(),
        files=verified.versions,
        size_bytes=verified.size_bytes,
        seconds=verified.seconds,
        is_whole=verified.is_complete,
        time_oldest_check=None if verified.oldest_check is None else verified.oldest_check.timestamp(),
    )
    news = [each for each in verified.damages if not each.is_reported]
    integrity = SourceIntegrity(damages=[each.message() for each in news], verified=outcome)
    delivery = report.send(configuration, place.machine_dir.name, {place.source: integrity})
    # Repaired damages, and those of removed snapshots, are dropped once they are reported.
    kept = [each for each in verified.damages if each in verified.open_damages or delivery is Delivery.LATER]
    is_reported = delivery is Delivery.NOW
    damage.write(place, [replace(each, is_reported=each.is_reported or is_reported) for each in kept])
    return is_reported


def _print_result(verified: ScrubResult, say: Say) -> None:
    place = verified.place
    state = f"{len(verified.open_damages)} DAMAGED" if verified.open_damages else "good"
    how_far = "" if verified.is_complete else ", to be continued by the next run"
    say(
        f"{place.machine_dir.name}  {place.source}  {state}: {count_of(verified.versions, 'version')} in "
        f"{count_of(verified.files, 'file')}, {size(verified.size_bytes)}, in {verified.seconds:.1f} s{how_far}"
    )
    if verified.new_checksums:
        say(f"    {verified.new_checksums} versions had no checksum before, and have one now")
    for each in verified.damages:
        names = list(each.snapshots[-_SHOWN_SNAPSHOTS:])
        more = each.snapshot_count - len(names)
        state = {"next_backup": "the next backup brings it", "gone": "left history"}.get(each.state, each.state)
        say(f"    {one_line(each.raw_path)}: {each.kind}, {state}")
        say(f"        in {', '.join(names)}{f' and {more} more' if more else ''}")


def _scrub_object(verified: ScrubResult, *, is_reported: bool) -> dict[str, Any]:
    return {
        "machine": verified.place.machine_dir.name,
        "source": verified.place.source,
        "versions": verified.versions,
        "files": verified.files,
        "bytes": verified.size_bytes,
        "seconds": round(verified.seconds, 3),
        "new_checksums": verified.new_checksums,
        "is_complete": verified.is_complete,
        "oldest_check": None if verified.oldest_check is None else verified.oldest_check.isoformat(),
        "is_reported": is_reported,
        "damages": [
            {
                "path": one_line(each.raw_path),
                "kind": each.kind,
                "state": each.state,
                "checksum": each.checksum,
                "snapshots": list(each.snapshots),
                "snapshot_count": each.snapshot_count,
            }
            for each in verified.damages
        ],
    }


def _ask_for_comparison(places: tuple[SourceDirectory, ...], configuration: StorageState, say: Say) -> int:
    for place in places:
        source_comparison.request(configuration, place)
        say(f"{place.machine_dir.name}  {place.source}  is compared with the machine after its next backup")
    return 0


def drill(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    """Drill the sources that were chosen. Return 1 where a drill failed."""
    found: list[dict[str, Any]] = []
    with lock.exclusive(configuration.state.lock_dir, "drill"):
        restore_drill.remove_leftovers(configuration.integrity)
        if options.due:
            lower_priority()
        for place in selected(options, configuration):
            if options.due and not drill_record.is_due(
                place, drill_days=configuration.integrity.drill_days, now=clock.now()
            ):
                continue
            made = restore_drill.drill(configuration, place, clock=clock)
            try:
                drill_record.write(place, made.outcome(configuration.integrity))
            except TurkuError as error:
                made.problems.append(f"the result cannot be recorded: {error.message}")
            integrity = {place.source: SourceIntegrity(drill=made.outcome(configuration.integrity))}
            delivery = report.send(configuration, place.machine_dir.name, integrity)
            found.append(_drill_object(made, is_reported=delivery is Delivery.NOW))
            if not options.json:
                say(f"{place.machine_dir.name}  {place.source}  {'good' if made.is_good else 'FAILED'}")
                for line in made.summary.splitlines():
                    say(f"    {line}")
    if options.json:
        say(json_text(found, indent=4))
    elif not found:
        require_volumes(options, configuration)
        say("no drill is due" if options.due else "nothing is kept here")
    return 0 if all(each["success"] for each in found) else EXIT_PROBLEMS


def _drill_object(made: DrillResult, *, is_reported: bool) -> dict[str, Any]:
    return {
        "machine": made.place.machine_dir.name,
        "source": made.place.source,
        "snapshot": made.snapshot,
        "success": made.is_good,
        "files": made.files,
        "bytes": made.size_bytes,
        "seconds": round((made.end - made.begin).total_seconds(), 3),
        "without_checksum": made.unchecked,
        "problems": made.problems,
        "is_reported": is_reported,
    }


COMMANDS = (
    Command(
        "verify",
        "Read stored files again, compare them with the catalog, and repair what is damaged.",
        configured(verify, needs_all_volumes=True),
        (
            ("Read everything that one source has:", "{prog} --machine web/0 --source etc"),
            ("Read for an hour, where it was longest ago:", "{prog} --budget 3600 --background"),
            ("Read a hundredth of each source at 50 MB per second:", "{prog} --sample 1 --rate 50"),
        ),
        (
            *SELECTION,
            OneOf(
                Argument(
                    "--sample",
                    type=number("percent", 100, above_least=True),
                    metavar="PERCENT",
                    help="Read only this share of each source's file versions: those that were read longest ago.",
                ),
                Argument(
                    "--budget",
                    type=number("seconds", 31 * 86_400, above_least=True),
                    metavar="SECONDS",
                    help="Stop after this time. The next run continues where this one stopped.",
                ),
            ),
            Argument(
                "--rate",
                type=number("megabytes", 1_000_000, above_least=True),
                metavar="MB",
                help="Read at most this many megabytes per second (default: verify_bytes_per_second).",
            ),
            Argument("--background", action="store_true", help="Let every other program use the disk first."),
            Argument(
                "--against-source",
                action="store_true",
                help="Read nothing now. After the next backup, compare a sample of unchanged files with the machine's.",
            ),
            common.JSON,
        ),
        "Damaged files are printed with the snapshots that hold them, and reported to the coordinator.",
        {1: "Something is damaged and not repaired, or a source was not verified.", 75: "Another run is active."},
    ),
    Command(
        "drill",
        "Restore a sample of each source's newest snapshot, compare it, and report the result.",
        configured(drill, needs_all_volumes=True),
        (
            ("Drill every source:", "{prog}"),
            ("Drill those whose turn it is, as the timer does:", "{prog} --due"),
            ("Drill the sources of one machine:", "{prog} --machine web/0"),
        ),
        (
            *SELECTION,
            Argument(
                "--due",
                action="store_true",
                help="Only sources whose last good drill is drill_days old, or whose last one failed a day ago. The "
                "timer does this.",
            ),
            common.JSON,
        ),
        "The sample goes into a scratch directory, and drill_check_program checks it.",
        {1: "A drill failed.", 75: "Another drill is running."},
    ),
)
