"""The command line of the coordinator, turku-api, and the names that the existing system has for three commands."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from turku.api.configuration import service_user
from turku.core import durable, log
from turku.core.cli import entry as program_entry
from turku.core.cli.program import Program
from turku.errors import CommandFailed, ConfigurationError, DurableWriteFailed

PROGRAM = Program(
    "turku-api",
    "Run the coordinator, which knows every machine and storage, and decides which backups are due. Settings come from "
    "the environment, such as TURKU_DATABASE_URL. Where it has none of them, root's commands read "
    "/etc/turku-api/environment and run as the user turku-api. Commands of Django work as well, such as migrate, "
    "createsuperuser, changepassword and check. 'turku-api help' lists them.",
    "turku.api.commands",
    {"host_setup": ("setup", "teardown")}
    | {
        name.replace("-", "_"): (name,)
        for name in (
            "serve",
            "status",
            "auth-create",
            "back-up-now",
            "health",
            "clean-logs",
            "restore",
            "hash-key",
            "tls",
            "backup",
            "recover",
        )
    }
    | {f"fleet.{name.replace('-', '_')}": (name,) for name in ("join-token", "profile", "machine", "storage")},
    (
        ("Set this host up as the coordinator:", "{prog} setup"),
        ("Create an Auth for machines:", "{prog} auth-create machine_reg"),
        ("Name everything that has a problem:", "{prog} health --verbose"),
    ),
    (),
)
_SHOWING = {"-h", "--help", "--version"}
_SETS_UP = ("setup", "teardown")
"""The commands for a host that may have no settings yet. They need no database."""
_BRINGS_SETTINGS = "recover"
"""The command that may have to put the settings back before anything reads them."""


def _prepare(*, creates: bool, has_settings: bool) -> None:
    """Choose the settings, and set up logging and Django. With ``creates``, create the files that are missing.

    Without ``has_settings``, the command sets up Django itself.
    """
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
    if creates:
        create_files()
    if has_settings:
        django.setup()


def create_files() -> None:
    """Create the state directory, the keys and an empty SQLite database, where they are missing."""
    from turku.api.configuration import environment, key_file

    settings = environment.read(os.environ)
    try:
        durable.make_private_directory(settings.state_dir)
        if not settings.secret_key:
            key_file.generate_if_missing(settings.secret_key_file)
        if not settings.hash_keys:
            key_file.generate_if_missing(settings.hash_key_file)
        if settings.database.engine == "sqlite3":
            durable.write_new_text(Path(settings.database.name), "")
    except DurableWriteFailed as error:
        raise ConfigurationError(
            f"{error.message}", hint="set TURKU_STATE_DIR to a directory that this user may write"
        ) from error


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
    if word in _SETS_UP:
        log.set_up("turku-api", debug=bool(os.environ.get("TURKU_DEBUG")), is_bounded=False)
        os.umask(0o077)
        return PROGRAM.main([word, *rest])
    has_settings = word != _BRINGS_SETTINGS
    if has_settings and _SHOWING.isdisjoint(rest) and word not in _SHOWING:
        service_user.become(os.environ)
    _prepare(creates=word == "migrate" and _SHOWING.isdisjoint(rest), has_settings=has_settings)
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
        from turku.api.commands.setup import unusable_database

        raise unusable_database(error) from error


def _entry_of(*words: str) -> Callable[[], NoReturn]:
    return lambda: program_entry.run(lambda arguments: main([*words, *arguments]))


entry = _entry_of()
# Programs of the existing system.
auth_create_entry, health_entry, clean_logs_entry = map(_entry_of, ("auth-create", "health", "clean-logs"))
