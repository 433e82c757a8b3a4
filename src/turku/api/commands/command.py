"""What the commands of `turku-api` share: the names that people type, and help that shows their own options."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

_PREFIX = "turku_"


class TurkuCommand(BaseCommand):
    """A command whose module is called ``turku_WORD``, and which people call ``WORD``."""

    suppressed_base_arguments = {
        "--version",
        "--verbosity",
        "--settings",
        "--pythonpath",
        "--traceback",
        "--no-color",
        "--force-color",
    }

    def create_parser(self, prog_name: str, subcommand: str, **options: Any) -> CommandParser:
        """The parser; ``turku_auth_create`` is shown as ``auth-create``."""
        name = subcommand.removeprefix(_PREFIX).replace("_", "-")
        parser = super().create_parser(prog_name, name, **options)
        for action in parser._actions:
            if action.dest == "skip_checks":
                action.help = argparse.SUPPRESS
        return parser
