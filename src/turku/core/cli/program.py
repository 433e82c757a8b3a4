"""Programs and their subcommands, declared once: parser, help and dispatch follow from the declaration."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from turku import __version__
from turku.core.cli.arguments import Example, Parser

AddArguments = Callable[[Parser], None]
Run = Callable[[argparse.Namespace], int]


def no_arguments(_parser: Parser) -> None:
    """Add nothing: the command has the common options alone."""


@dataclass(frozen=True)
class Command:
    """A command: its arguments, its help, and the function that runs it and returns the exit code."""

    name: str
    summary: str
    """One sentence, which the list of subcommands and the command's own help show."""
    run: Run
    examples: tuple[Example, ...]
    add_arguments: AddArguments = no_arguments
    details: str = ""
    """Sentences that follow the summary in the command's own help."""
    exit_codes: Mapping[int, str] = field(default_factory=dict)

    def parser(self, prog: str, common: AddArguments) -> Parser:
        """Return the parser of a program that is this command alone."""
        parser = Parser(prog=prog, description=self.description, examples=self.examples, exit_codes=self.exit_codes)
        add_version(parser)
        self._fill(parser, common)
        return parser

    def add_to(self, commands: argparse._SubParsersAction[Parser], common: AddArguments) -> None:
        """Add this command to the subcommands of a parser."""
        parser = commands.add_parser(
            self.name,
            help=self.summary,
            description=self.description,
            examples=self.examples,
            exit_codes=self.exit_codes,
        )
        self._fill(parser, common)

    @property
    def description(self) -> str:
        """The text at the top of the command's own help."""
        return f"{self.summary} {self.details}".strip()

    def _fill(self, parser: Parser, common: AddArguments) -> None:
        self.add_arguments(parser)
        common(parser)
        parser.set_defaults(run=self.run)


@dataclass(frozen=True)
class CommandGroup:
    """A command with actions of its own, such as ``trash list``. A program is a group as well."""

    name: str
    summary: str
    commands: Sequence[Command | CommandGroup]
    examples: tuple[Example, ...]
    details: str = ""

    def add_to(self, commands: argparse._SubParsersAction[Parser], common: AddArguments) -> None:
        """Add this group to the subcommands of a parser."""
        parser = commands.add_parser(
            self.name,
            help=self.summary,
            description=f"{self.summary} {self.details}".strip(),
            examples=self.examples,
        )
        self._fill(parser, common)

    def parser(self, common: AddArguments) -> Parser:
        """Return the parser of a program with these subcommands."""
        description = f"{self.summary} {self.details}".strip()
        parser = Parser(prog=self.name, description=description, examples=self.examples)
        add_version(parser)
        self._fill(parser, common)
        return parser

    def _fill(self, parser: Parser, common: AddArguments) -> None:
        commands = parser.add_subparsers(metavar="COMMAND", required=True)
        for each in self.commands:
            each.add_to(commands, common)


def run(parser: Parser, arguments: Sequence[str]) -> int:
    """Return the exit code of the command that the arguments name. Raises UsageError."""
    options = parser.parse_args(arguments)
    exit_code: int = options.run(options)
    return exit_code


def add_version(parser: Parser) -> None:
    """Add ``--version``."""
    parser.common.add_argument("--version", action="version", version=f"turku {__version__}", help="Show the version.")
