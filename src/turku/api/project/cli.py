"""The command `turku-api`, and the names that the existing system has for some of its commands."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from turku.core import durable, log
from turku.core.cli import entry as entry_point
from turku.core.cli.arguments import help_ending
from turku.errors import CommandFailed, ConfigurationError, TurkuError, UsageError

if TYPE_CHECKING:
    from django.core.management import BaseCommand

_HELP = """\
usage: turku-api COMMAND ...

Run the coordinator, which knows every machine and storage, and decides which
backups are due.

Commands:
  migrate          Set the database up, or bring it up to this version.
  serve            Serve the calls of agents and storages, and the admin site.
  createsuperuser  Create an account for the admin site.
  auth-create      Create an Auth with which machines or storages register.
  back-up-now      Make the sources of a machine due now.
  health           Print one line on the state of the fleet, as a Nagios check.
  clean-logs       Delete old records of backup runs.
  machine          Re-enrol or mute a machine, or confirm withdrawn sources.
  restore          Ask for restores; approve, reject, cancel and list them.
  hash-key         List, add or remove the keys that protect credentials.
  check            Look for mistakes in the settings.

Every other command of Django is there as well: `turku-api help` lists them.
Settings come from the environment: TURKU_STATE_DIR, TURKU_DATABASE_URL,
TURKU_ALLOWED_HOSTS, TURKU_TIME_ZONE, and others.

Common options:
  -h, --help       Show this text and exit.
  --version        Show the version.

"""
_EXAMPLES = (
    ("Set the coordinator up:", "{prog} migrate && {prog} createsuperuser"),
    ("Create an Auth for machines:", "{prog} auth-create machine_reg"),
    ("Check the fleet:", "{prog} health --verbose"),
)

_COMMANDS = {
    "auth-create": "turku_auth_create",
    "back-up-now": "turku_back_up_now",
    "health": "turku_health",
    "clean-logs": "turku_clean_logs",
    "machine": "turku_machine",
    "restore": "turku_restore",
    "hash-key": "turku_hash_key",
}


def _prepare() -> None:
    """Choose the settings, set up logging, and create the state directory."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "turku.api.project.settings")
    # Django's commands write colours as control sequences, which the guarded output would escape.
    os.environ.setdefault("DJANGO_COLORS", "nocolor")
    # The database and the keys are for this user alone.
    os.umask(0o077)
    log.set_up("turku-api", debug=bool(os.environ.get("TURKU_DEBUG")), is_bounded=False)
    _quieten_django()
    from turku.api.configuration import environment

    state_dir: Path = environment.read(os.environ).state_dir
    if not state_dir.is_dir():
        try:
            durable.make_private_directory(state_dir)
        except TurkuError as error:
            raise ConfigurationError(
                f"{error.message}", hint="set TURKU_STATE_DIR to a directory that this user may write"
            ) from error


def _require_django() -> None:
    try:
        import django  # noqa: F401  (looked for, not used)
    except ImportError:
        raise CommandFailed(
            "the coordinator's part of Turku is not installed here",
            hint="on the coordinator's host, install the extra: pip install 'turku[api]'",
        ) from None


def _quieten_django() -> None:
    """Log refusals once, in the call that refuses. A request with an unknown Host is not an error of the server."""
    logging.getLogger("django.request").setLevel(logging.ERROR)
    logging.getLogger("django.security.DisallowedHost").addFilter(_reword)


def _reword(record: logging.LogRecord) -> bool:
    record.msg = str(record.msg).partition(" You may need to")[0] + " TURKU_ALLOWED_HOSTS names those that are served."
    record.args, record.exc_info, record.exc_text = None, None, None
    record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def main(arguments: Sequence[str]) -> int:
    """Run one command, and return its exit code. Raises TurkuError."""
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(f"{_HELP}{help_ending('turku-api', _EXAMPLES, {})}\n")
        return 0
    if arguments[0] == "--version":
        from turku import __version__

        sys.stdout.write(f"turku-api {__version__}\n")
        return 0
    _require_django()
    _prepare()
    from django.db import DatabaseError

    command, *rest = arguments
    try:
        if command == "serve":
            from turku.api.project import serve

            return serve.main(rest)
        _run(command, rest)
    except DatabaseError as error:
        from django.conf import settings

        database = settings.DATABASES["default"]
        raise ConfigurationError(
            f"the database {database['NAME']} cannot be used: {' '.join(str(error).split())}",
            hint="is it set up (`turku-api migrate`) and reachable (TURKU_DATABASE_URL, TURKU_STATE_DIR)?",
        ) from error
    return 0


def _run(command: str, arguments: Sequence[str]) -> None:
    """Run a command of Turku or of Django. Raises UsageError for an unknown one."""
    import difflib

    from django.core.management import ManagementUtility, get_commands

    class Utility(ManagementUtility):
        def fetch_command(self, subcommand: str) -> "BaseCommand":
            # Before Django asks, the commands of the apps are not known.
            known = get_commands()
            if subcommand not in known:
                close = difflib.get_close_matches(command, sorted({*known, *_COMMANDS, "serve"}), n=1)
                suggestion = f"; did you mean {close[0]}?" if close else ""
                raise UsageError(
                    f"turku-api has no command {command!r}{suggestion}", hint="turku-api --help lists them"
                )
            return super().fetch_command(subcommand)

    Utility(["turku-api", _COMMANDS.get(command, command), *arguments]).execute()


def entry() -> NoReturn:
    """Run `turku-api`."""
    entry_point.run(main)


def _entry_of(command: str) -> Callable[[], NoReturn]:
    return lambda: entry_point.run(lambda arguments: main([command, *arguments]))


# Commands of the existing system.
auth_create_entry, health_entry, clean_logs_entry = map(_entry_of, ("auth-create", "health", "clean-logs"))
