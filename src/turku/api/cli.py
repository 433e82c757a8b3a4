"""The command line of the coordinator, turku-api, and the names that the existing system has for three commands."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from turku.core import durable, log
from turku.core.cli import entry as program_entry
from turku.core.cli.program import Program
from turku.errors import CommandFailed, ConfigurationError, TurkuError

PROGRAM = Program(
    "turku-api",
    "Run the coordinator, which knows every machine and storage, and decides which backups are due. Settings come from "
    "the environment, such as TURKU_DATABASE_URL (docs/reference/configuration.md). Commands of Django work as well, "
    "such as migrate, createsuperuser, changepassword and check. 'turku-api help' lists them.",
    "turku.api.commands",
    {
        name.replace("-", "_"): (name,)
        for name in ("serve", "auth-create", "back-up-now", "health", "clean-logs", "machine", "restore", "hash-key")
    },
    (
        ("Set the coordinator up, with an account for the admin site:", "{prog} migrate && {prog} createsuperuser"),
        ("Create an Auth for machines:", "{prog} auth-create machine_reg"),
        ("Name everything that has a problem:", "{prog} health --verbose"),
    ),
    (),
)
_SHOWING = {"-h", "--help", "--version"}


def _prepare(*, shows_only: bool) -> None:
    """Choose the settings, set up logging and Django, and create the state directory unless help is shown."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "turku.api.project.settings")
    # Django's commands write colours as control sequences, which the guarded output would escape.
    os.environ.setdefault("DJANGO_COLORS", "nocolor")
    # The database and the keys are for this user alone.
    os.umask(0o077)
    log.set_up("turku-api", debug=bool(os.environ.get("TURKU_DEBUG")), is_bounded=False)
    _quieten_django()
    try:
        import django
    except ImportError:
        raise CommandFailed(
            "the coordinator's part of Turku is not installed here",
            hint="on the coordinator's host, install the extra: pip install 'turku[api]'",
        ) from None
    from turku.api.configuration import environment

    state_dir: Path = environment.read(os.environ).state_dir
    if shows_only:
        # A key that the settings generate would belong to the user who reads the help.
        os.environ["TURKU_SECRET_KEY_FILE"] = os.devnull
    elif not state_dir.is_dir():
        try:
            durable.make_private_directory(state_dir)
        except TurkuError as error:
            raise ConfigurationError(
                f"{error.message}", hint="set TURKU_STATE_DIR to a directory that this user may write"
            ) from error
    django.setup()


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
    word, *rest = arguments or ["--help"]
    if word.startswith("turku_"):
        # The existing system has auth-create as turku_auth_create.
        word = word.removeprefix("turku_").replace("_", "-")
    _prepare(shows_only=word == "help" or not _SHOWING.isdisjoint((word, *rest)))
    from django.conf import settings
    from django.core.management import execute_from_command_line, get_commands
    from django.db import DatabaseError

    if word == "help" and rest and rest[0] not in get_commands():
        word, rest = rest[0], ["--help"]
    try:
        if word in ("help", *get_commands()):
            execute_from_command_line(["turku-api", word, *rest])
            return 0
        return PROGRAM.main([word, *rest])
    except DatabaseError as error:
        raise ConfigurationError(
            f"the database {settings.DATABASES['default']['NAME']} cannot be used: {' '.join(str(error).split())}",
            hint="is it set up (`turku-api migrate`) and reachable (TURKU_DATABASE_URL, TURKU_STATE_DIR)?",
        ) from error


def _entry_of(*words: str) -> Callable[[], NoReturn]:
    return lambda: program_entry.run(lambda arguments: main([*words, *arguments]))


entry = _entry_of()
# Programs of the existing system.
auth_create_entry, health_entry, clean_logs_entry = map(_entry_of, ("auth-create", "health", "clean-logs"))
