"""Programs and their subcommands, declared once: parser, help and dispatch follow from the declaration."""

import argparse
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from turku import __version__
from turku.core.cli.arguments import Example, Parser

Run = Callable[[argparse.Namespace], int]


class Argument:
    """An argument or option, declared as argparse's ``add_argument`` takes it."""

    def __init__(self, *names: str, **settings: Any) -> None:
        self.names = names
        self.settings = settings

    def add_to(self, parser: argparse._ActionsContainer) -> None:
        """Add it to a parser, or to a group of one."""
        parser.add_argument(*self.names, **self.settings)


class OneOf:
    """Options of which a command line may have one only."""

    def __init__(self, *options: Argument) -> None:
        self.options = options

    def add_to(self, parser: argparse._ActionsContainer) -> None:
        """Add them to a parser."""
        add_arguments(parser.add_mutually_exclusive_group(), self.options)


Arguments = tuple[Argument | OneOf, ...]


def add_arguments(parser: argparse._ActionsContainer, arguments: Iterable[Argument | OneOf]) -> None:
    """Add the arguments to a parser, or to a group of one."""
    for argument in arguments:
        argument.add_to(parser)


@dataclass(frozen=True)
class Command:
    """A command: its arguments, its help, and the function that runs it and returns the exit code."""

    name: str
    summary: str
    """One sentence, which the list of subcommands and the command's own help show."""
    run: Run
    examples: tuple[Example, ...]
    arguments: Arguments = ()
    details: str = ""
    """Sentences that follow the summary in the command's own help."""
    exit_codes: Mapping[int, str] = field(default_factory=dict)

    @property
    def help_settings(self) -> dict[str, Any]:
        """The settings of the parser that are for its help text."""
        description = f"{self.summary} {self.details}".strip()
        return {"description": description, "examples": self.examples, "exit_codes": self.exit_codes}

    def fill(self, parser: Parser, common: Arguments) -> None:
        """Add the arguments to this command's own parser."""
        add_arguments(parser, self.arguments)
        add_arguments(parser.common, common)
        parser.set_defaults(run=self.run, command=self.name)


@dataclass(frozen=True)
class CommandGroup:
    """A command with actions of its own, such as ``trash list``. A program is a group as well."""

    name: str
    summary: str
    commands: "Sequence[Command | CommandGroup]"
    examples: tuple[Example, ...]
    details: str = ""

    @property
    def help_settings(self) -> dict[str, Any]:
        """The settings of the parser that are for its help text."""
        return {"description": f"{self.summary} {self.details}".strip(), "examples": self.examples}

    def fill(self, parser: Parser, common: Arguments) -> None:
        """Add the subcommands to this group's own parser."""
        commands = parser.add_subparsers(metavar="COMMAND", required=True)
        for each in self.commands:
            each.fill(commands.add_parser(each.name, help=each.summary, **each.help_settings), common)


@dataclass(frozen=True)
class Program:
    """A program whose subcommands lie in the modules of one package, in their ``COMMANDS``.

    Only the module of the command that was typed is imported, because sessions and timers start programs often.
    """

    name: str
    summary: str
    package: str
    modules: Mapping[str, Sequence[str]]
    """Module to the names of its commands, in the order in which people are shown them."""
    examples: tuple[Example, ...]
    common: Arguments

    def parser(self, word: str = "", *, prog: str = "") -> Parser:
        """Return the parser of the program, with all commands or the typed one.

        ``prog`` is the name of a program that is the one command alone.
        """
        chosen = [module for module, names in self.modules.items() if word in names]
        modules = [importlib.import_module(f"{self.package}.{name}") for name in chosen or self.modules]
        commands = [each for module in modules for each in module.COMMANDS]
        declared: Command | CommandGroup = CommandGroup(self.name, self.summary, commands, self.examples)
        if prog:
            declared = next(each for each in commands if each.name == word)
        parser = Parser(prog=prog or self.name, **declared.help_settings)
        parser.common.add_argument(
            "--version", action="version", version=f"turku {__version__}", help="Show the version."
        )
        declared.fill(parser, self.common)
        return parser

    def main(self, arguments: Sequence[str], *, word: str = "", prog: str = "") -> int:
        """Return the exit code of the program with these arguments. Raises UsageError.

        ``word`` and ``prog`` are set for a program that is one command alone.
        """
        options = self.parser(word or next(iter(arguments), ""), prog=prog).parse_args(arguments)
        exit_code: int = options.run(options)
        return exit_code
