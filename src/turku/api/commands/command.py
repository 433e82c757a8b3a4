"""The base of the commands of `turku-api`: Django's command with the parser, help and exit codes of all programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.core.management.base import BaseCommand

from turku.core.cli.arguments import Example, Parser

_PREFIX = "turku_"
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

    examples: ClassVar[tuple[Example, ...]] = ()
    exit_codes: ClassVar[Mapping[int, str]] = {}

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:  # noqa: ARG002  (Django's)
        """Return the parser. ``turku_auth_create`` is shown as ``auth-create``."""
        name = subcommand.removeprefix(_PREFIX).replace("_", "-")
        parser = Parser(
            prog=f"turku-api {name}", description=self.help, examples=self.examples, exit_codes=self.exit_codes
        )
        parser.set_defaults(**_DEFAULTS)
        self.declare_arguments(parser)
        return parser

    def declare_arguments(self, parser: Parser) -> None:
        """Add the arguments of the command."""


def add_action(actions: Any, name: str, summary: str, *examples: Example) -> Parser:
    """Add an action of a command, such as ``mute`` of ``machine``, and return its parser."""
    parser: Parser = actions.add_parser(name, help=summary, description=summary, examples=examples)
    return parser
