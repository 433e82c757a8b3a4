"""``turku-agent restore``: bring files of a snapshot back to this machine."""

import argparse
import sys
from contextlib import closing
from pathlib import Path

from turku.agent import checkin
from turku.agent.checkin import RestorableSources
from turku.agent.commands.browse import STORAGE, UNFINISHED
from turku.agent.commands.setup import configured
from turku.agent.config.model import AgentConfig, AgentState
from turku.agent.restore import browse, manifest
from turku.agent.restore import run as restore_run
from turku.agent.restore.job import PlannedRestore, RestoreJob
from turku.agent.restore.result import ProgressDisplay, RestoreResult
from turku.agent.state import staging_records
from turku.browse.arguments import snapshot_choice
from turku.core.cli import options as common
from turku.core.cli import person
from turku.core.cli.listing import Say, iso_moment
from turku.core.cli.program import Argument, Command, OneOf
from turku.core.log import one_line
from turku.core.units import count_of, size
from turku.errors import RestoreFailed, RestoreIncomplete, TurkuError, UsageError


def run(options: argparse.Namespace, agent: AgentConfig, say: Say) -> int:
    """Restore, or show what a restore would do.

    Raises RestoreIncomplete where some files are restored, and as ``turku.agent.restore.run.restore``.
    """
    restorable = checkin.restorable_sources(agent).on(options.storage)
    with restorable.naming_former_storages():
        return _run(options, agent, _job(options, agent, restorable), say)


def _run(options: argparse.Namespace, agent: AgentConfig, job: RestoreJob, say: Say) -> int:
    if options.dry_run:
        for line in manifest.dry_run_lines(agent, job):
            say(line)
        return 0
    if options.in_place and not options.yes:
        _require_person()
    plans: list[PlannedRestore] = []

    def approve(plan: PlannedRestore) -> bool:
        plans[:] = [plan]
        return _approve(plan, options)

    try:
        with closing(ProgressDisplay()) as display:
            outcome = restore_run.restore(agent, job, on_progress=display.show, approve=approve)
    except KeyboardInterrupt:
        if hint := _next_step(agent.state, job, plans):
            print(hint, file=sys.stderr)  # noqa: T201
        raise
    except TurkuError as error:
        # Nothing was restored yet. Files that arrived can still be used by the next run.
        error.hint = error.hint or _next_step(agent.state, job, plans)
        raise
    return _print_result(outcome, say, _next_step(agent.state, job, plans))


def _next_step(configuration: AgentState, job: RestoreJob, plans: list[PlannedRestore]) -> str:
    """Return the sentence that says how to resume, or an empty text where there is nothing to resume."""
    if not plans or not staging_records.can_resume(configuration, plans[0].target, job.digest(plans[0].snapshot)):
        return ""
    if job.snapshot.name is not None:
        return "the same command again goes on where this one ended"
    # By then another snapshot may be the latest.
    instead = " in place of --at" if job.snapshot.at is not None else ""
    return f"the same command again with --snapshot {plans[0].snapshot}{instead} goes on where this one ended"


def _job(options: argparse.Namespace, agent: AgentConfig, restorable: RestorableSources) -> RestoreJob:
    choice = snapshot_choice(options.snapshot, options.at, is_unfinished=options.unfinished)
    active = restorable.sources
    known = browse.order_of(active, options.source)
    paths = tuple(browse.path_in_source(agent, known, options.source, text) for text in options.paths)
    target = None if options.to is None else options.to.absolute().resolve()
    if options.in_place:
        # The coordinator knows a path as well, but only this machine decides where it writes (threats C3).
        configured = agent.sources.get(options.source)
        if configured is None:
            raise UsageError(
                f"source {options.source} is not configured on this machine, so it has no place here",
                hint="--to names a directory",
            )
        target = Path(configured.path).resolve()
    return RestoreJob(
        options.source,
        known.storage,
        target,
        snapshot=choice,
        paths=() if b"" in paths else paths,
        overwrite=options.overwrite,
        delete=options.delete,
        hard_links=known.preserve_hard_links,
        compare_contents=options.compare_contents,
    )


def _approve(plan: PlannedRestore, options: argparse.Namespace) -> bool:
    """Return whether a person or ``--yes`` approves. A new directory needs no approval."""
    made = plan.snapshot if plan.moment is None else iso_moment(plan.moment, has_zone=True)
    what = f"source {plan.source} as of {one_line(made)}"
    if options.unfinished:
        what = f"source {plan.source}, of which NO backup was finished: what there is of it"
    if plan.files is not None and plan.size_bytes is not None:
        what += f": {count_of(plan.files, 'file')}, {size(plan.size_bytes)}"
    print(f"{what}, into {one_line(str(plan.target))}", file=sys.stderr)  # noqa: T201
    for remark in plan.remarks:
        print(f"NOTE: {remark}.", file=sys.stderr)  # noqa: T201
    if options.yes:
        return True
    if plan.is_target_empty and not options.in_place and not options.delete:
        # Nothing is lost by it, so a script goes on without an answer.
        return not plan.remarks or not person.is_there() or person.says_yes("Restore from this snapshot all the same?")
    _require_person()
    does = {
        "never": "Files that are there stay as they are.",
        "older": "Files that are older than the backup's are replaced.",
        "always": "Files that are there and differ are replaced.",
    }[options.overwrite]
    removes = " What the snapshot does not have is REMOVED." if options.delete else ""
    return person.says_yes(f"{does}{removes} Go on?")


def _require_person() -> None:
    if not person.is_there():
        raise UsageError("files that are there could be replaced, and nobody can be asked", hint=person.YES_HINT)


def _print_result(outcome: RestoreResult, say: Say, hint: str) -> int:
    if outcome.state == "whole":
        for line in outcome.lines():
            say(line)
        return 0
    if outcome.state == "cancelled":
        say("Nothing was restored.")
        return RestoreFailed.exit_code
    summary, *problems = outcome.lines()
    raise RestoreIncomplete(summary, details="\n".join(problem.strip() for problem in problems), hint=hint)


COMMANDS = (
    Command(
        "restore",
        "Bring files of a snapshot back to this machine.",
        configured(run, is_settled=True),
        (
            ("Restore a directory into a new one beside the current directory:", "{prog} home alice/letters"),
            ("Restore a file to its place, as it was yesterday:", "{prog} home alice/a.odt --at yesterday --in-place"),
            ("Show what a full restore would change:", "{prog} home --in-place --delete --dry-run"),
        ),
        (
            Argument("source", metavar="SOURCE", help="Source to restore from."),
            Argument("paths", nargs="*", metavar="PATH", help="Path in the source (default: all of it)."),
            Argument("--snapshot", metavar="NAME", help="Snapshot: its name, a part that no other has, or 'latest'."),
            common.AT,
            STORAGE,
            UNFINISHED,
            OneOf(
                Argument(
                    "--to",
                    type=Path,
                    metavar="DIR",
                    help="Directory to restore into (default: a new one, SOURCE-restored-...).",
                ),
                Argument("--in-place", action="store_true", help="Restore into the source itself."),
            ),
            Argument(
                "--overwrite",
                choices=("never", "older", "always"),
                default="always",
                help="Replace existing files that differ: never, those older than the backup's, or always (the "
                "default).",
            ),
            Argument("--delete", action="store_true", help="Remove files below PATH that the snapshot does not have."),
            Argument(
                "--compare-contents",
                action="store_true",
                help="Compare the contents of existing files, not only size and time.",
            ),
            common.DRY_RUN,
            common.YES,
        ),
        exit_codes={
            3: "Some files are restored. The error names those that are not.",
            4: "Nothing was restored, or the answer was no.",
        },
    ),
)
