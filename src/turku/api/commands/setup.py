"""The beginning of every subcommand: settings with mistakes and unusable databases are refused."""

import argparse
from collections.abc import Callable
from pathlib import Path

from django.conf import settings
from django.core import checks
from django.db import DatabaseError

from turku.api.configuration.key_file import MISSING_HINT
from turku.core.cli.listing import Say
from turku.core.cli.program import Run
from turku.core.units import count_of
from turku.errors import ConfigurationError


def configured(step: Callable[[argparse.Namespace, Say], int]) -> Run:
    """Return a command that takes the step. It raises ConfigurationError with all failed system checks before."""

    def run(options: argparse.Namespace) -> int:
        errors = [message for message in checks.run_checks() if message.is_serious()]
        if errors:
            lines = [f"  {message.id}: {message.msg} {message.hint or ''}".rstrip() for message in errors]
            raise ConfigurationError(
                f"the settings have {count_of(len(errors), 'error')}:\n" + "\n".join(lines),
                hint="fix the variables named above",
            )
        return step(options, print)

    return run


def unusable_database(error: DatabaseError) -> ConfigurationError:
    """Return the problem of a database that refused a query, with a hint that never risks existing data."""
    database = settings.TURKU_ENVIRONMENT.database
    if database.engine == "sqlite3" and not Path(database.name).exists():
        problem, hint = "the file is missing", MISSING_HINT
    else:
        problem = " ".join(str(error).split())
        hint = (
            "is it reachable (TURKU_DATABASE_URL, TURKU_STATE_DIR)? If it is empty and had data, restore its copy; "
            "only for a new or upgraded coordinator: turku-api migrate"
        )
    return ConfigurationError(f"the database {database.name} cannot be used: {problem}", hint=hint)
