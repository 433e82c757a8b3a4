"""The beginning of every subcommand: settings with mistakes are refused."""

import argparse
from collections.abc import Callable

from django.core import checks

from turku.core.cli.listing import Say
from turku.core.cli.program import Run
from turku.errors import ConfigurationError


def configured(step: Callable[[argparse.Namespace, Say], int]) -> Run:
    """Return a command that takes the step. It raises ConfigurationError with all failed system checks before."""

    def run(options: argparse.Namespace) -> int:
        errors = [message for message in checks.run_checks() if message.is_serious()]
        if errors:
            lines = [f"  {message.id}: {message.msg} {message.hint or ''}".rstrip() for message in errors]
            raise ConfigurationError(
                f"the settings have {len(errors)} error{'s' if len(errors) > 1 else ''}:\n" + "\n".join(lines),
                hint="fix the variables named above",
            )
        return step(options, print)

    return run
