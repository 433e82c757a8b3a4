"""The undoing of a setup, by the record of what it made."""

from collections.abc import Sequence
from contextlib import suppress

from turku.core import durable
from turku.core.cli import options as common
from turku.core.cli import person
from turku.core.cli.listing import Say
from turku.core.cli.program import Command, Run
from turku.core.setup import services
from turku.core.setup.host import Host
from turku.core.setup.host_files import LIMIT_BYTES
from turku.core.setup.plan import EXIT_NOT_DONE
from turku.core.setup.record import Kind, Made, Record, Reload
from turku.errors import CommandFailed

_ORDER = (Kind.UNIT, Kind.FILE, Kind.LINK, Kind.DIRECTORY, Kind.USER, Kind.REGISTRATION, Kind.DATA)
_UNDOING = {
    Kind.UNIT: "stop and disable {}",
    Kind.FILE: "remove {}",
    Kind.LINK: "remove the link {}",
    Kind.DIRECTORY: "remove the directory {}, if it is empty",
    Kind.USER: "remove the user {}",
    Kind.REGISTRATION: "forget that this host is registered with {}, which goes on knowing it",
}


def tear_down(
    program: str,
    host: Host,
    say: Say,
    *,
    stays: Sequence[str] = (),
    keeps_user: str = "",
    is_dry_run: bool = False,
    is_confirmed: bool = False,
) -> bool:
    """Undo what setup of a program made, and return True if that is done.

    ``stays`` has sentences on what nobody removes here, such as history. ``keeps_user`` is the reason to keep the user,
    whose number another user could get, and with it what is left. A file that was edited since is kept and
    named. Raises UsageError if nobody can be asked, CommandFailed. A killed run is finished by the next one.
    """
    record = Record(host, program)
    newest_first = list(reversed(record.made))
    made = sorted(newest_first, key=lambda each: _ORDER.index(each.kind))
    if not made:
        say(f"{program} setup made nothing on this host, or it was undone before.")
    else:
        say(f"To undo what {program} setup made on this host:")
    for each in made:
        if each.kind is Kind.DATA:
            # What stays is told below.
            continue
        reason = _reason_to_keep(host, each, keeps_user)
        say(f"  - {f'keep {each.target}: {reason}' if reason else _UNDOING[each.kind].format(each.target)}")
    for sentence in stays:
        say(f"  stays: {sentence}")
    if not made:
        return True
    if is_dry_run or not (is_confirmed or person.says_yes("Do this?")):
        say("Nothing was changed.")
        return False
    for each in made:
        kept = _undo(host, each, keeps_user)
        if kept:
            say(f"kept: {each.target}: {kept}")
        record.remove(each)
    say(f"{program} is not set up any more.")
    return True


def command(summary: str, run: Run) -> Command:
    """Return the command ``teardown`` of a program."""
    return Command(
        "teardown",
        summary,
        run,
        (
            ("Show what would be removed:", "{prog} --dry-run"),
            ("Undo the setup:", "{prog}"),
            ("Undo it without a question:", "{prog} --yes"),
        ),
        (common.DRY_RUN, common.YES),
        "Files that were edited since are kept and named.",
        exit_codes={EXIT_NOT_DONE: "Nothing was done."},
    )


def _reason_to_keep(host: Host, made: Made, keeps_user: str) -> str:
    """Return why a thing is not removed, or an empty text. Nothing is changed."""
    path = host.path(made.target)
    if made.kind is Kind.FILE:
        try:
            if not made.wrote(durable.read_regular_file(path, limit_bytes=LIMIT_BYTES)):
                return "it was edited since setup wrote it"
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"it is no file any more ({error.strerror})"
    if made.kind is Kind.LINK:
        with suppress(OSError):
            if str(path.readlink()) == made.digest:
                return ""
        return "it is another one now" if path.exists() else ""
    return keeps_user if made.kind is Kind.USER and host.account(made.target) is not None else ""


def _undo(host: Host, made: Made, keeps_user: str) -> str:
    """Undo one thing, and return the reason if it was kept."""
    kept = _reason_to_keep(host, made, keeps_user)
    if kept:
        return kept
    path = host.path(made.target)
    if made.kind is Kind.UNIT:
        services.stop(host, made.target)
    elif made.kind in (Kind.FILE, Kind.LINK):
        path.unlink(missing_ok=True)
        # The reload is repeated if the run is killed, because the record still has the entry.
        services.reload_services(host, [made.reload] if made.reload is not Reload.NONE else [])
    elif made.kind is Kind.DIRECTORY:
        try:
            path.rmdir()
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"the directory stays ({error.strerror})"
    elif made.kind is Kind.USER and host.account(made.target) is not None:
        return _remove_user(host, made.target)
    return ""


def _remove_user(host: Host, name: str) -> str:
    option = [] if host.is_this_one else ["--root", str(host.root)]
    programs = (["userdel", *option, name], ["deluser", name])
    argv = next((each for each in programs if host.find_program(each[0])), None)
    if argv is None:
        return "there is no program to remove a user (userdel, deluser)"
    try:
        host.run(argv)
    except CommandFailed as error:
        return "; ".join([error.message, *error.details.splitlines()])
    return ""
