"""The base of the commands of `turku-api`: Django's command with the parser, help and exit codes of all programs."""

import argparse
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

from django.core.management.base import BaseCommand

from turku.core.cli.arguments import Parser
from turku.core.cli.program import Command, CommandGroup

_DEFAULTS: Mapping[str, Any] = {
    "verbosity": 1,
    "settings": None,
    "pythonpath": None,
    "traceback": False,
    "no_color": False,
    "force_color": False,
    "skip_checks": False,
}
"""The values of Django's own options, which these commands do not have."""


class TurkuCommand(BaseCommand):
    """A command in a module named ``turku_WORD``, which people call ``WORD``."""

    declared: ClassVar[Command | CommandGroup]
    """The declaration. Its functions print by ``options.say``."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:  # noqa: ARG002  (Django's)
        """Return the parser. ``turku_auth_create`` is shown as ``auth-create``."""
        parser = Parser(prog=f"turku-api {self.declared.name}", **self.declared.help_settings)
        parser.set_defaults(**_DEFAULTS)
        self.declared.fill(parser, ())
        return parser

    def handle(self, *_arguments: Any, **options: Any) -> None:
        """Run the command, and exit with its code if that is not 0."""
        if code := options["run"](argparse.Namespace(**options, say=self.stdout.write)):
            sys.exit(code)
