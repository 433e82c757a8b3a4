"""The argument parser of all programs: its mistakes are errors like all others, and its help has one layout."""

import argparse
import math
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from turku.errors import UsageError

_END_OF_OPTIONS = "--"
_HELP = ("-h", "--help")
_PLAIN = "\0"
"""A prefix that keeps argparse from taking a word for an option or for ``--``. No command line contains it."""
_WIDEST_HELP = 100
_HELP_COLUMN = 26
_USAGE_LIMIT_CHARACTERS = 160

EXIT_CODES: Mapping[int, str] = {0: "Success.", 64: "The command line is wrong."}
"""Exit codes that every command has. Each error has one of its own as well (docs/reference/errors.md)."""

Example = tuple[str, str]
"""A sentence that says what is done, and the command line that does it. ``{prog}`` stands for the command."""


class HelpFormatter(argparse.HelpFormatter):
    """The layout of every help text: at most as wide as the terminal, short spellings of options first."""

    def __init__(self, prog: str, **_settings: Any) -> None:
        super().__init__(prog, max_help_position=_HELP_COLUMN, width=help_width())

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        # Lists of examples and exit codes are laid out already.
        return text if "\n" in text else "\n".join(indent + line for line in self._split_lines(text, width))

    def _split_lines(self, text: str, width: int) -> list[str]:
        # A path or a program's name is not broken at its hyphens.
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _format_action(self, action: argparse.Action) -> str:
        if isinstance(action, argparse._SubParsersAction):
            # The heading of the section says what they are.
            return self._join_parts([self._format_action(each) for each in action._get_subactions()])
        return super()._format_action(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        spellings = ", ".join(sorted(action.option_strings, key=len))
        if action.nargs == 0:
            return spellings
        return f"{spellings} {self._format_args(action, self._get_default_metavar_for_optional(action))}"


def help_width() -> int:
    """Return the number of columns that help texts use."""
    return min(shutil.get_terminal_size().columns, _WIDEST_HELP) - 2


def help_ending(prog: str, examples: Iterable[Example], exit_codes: Mapping[int, str]) -> str:
    """Return the last two sections of a help text: examples and exit codes."""
    lines = ["Examples:"] if examples else []
    for purpose, line in examples:
        lines += [f"  {purpose}", f"    {line.format(prog=prog)}"]
    lines += ["", "Exit codes:"] if lines else ["Exit codes:"]
    for code, meaning in sorted({**EXIT_CODES, **exit_codes}.items()):
        lines += textwrap.wrap(meaning, help_width(), initial_indent=f"  {code:<4}", subsequent_indent=" " * 6)
    lines.append("  Other codes name the error that is printed (docs/reference/errors.md).")
    return "\n".join(lines)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError, and whose help has the sections of all programs.

    Subparsers are of the same class. Options may stand before, between and behind the other arguments. A word after
    ``--`` is never an option.
    """

    def __init__(
        self,
        *arguments: Any,
        examples: Sequence[Example] = (),
        exit_codes: Mapping[int, str] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(*arguments, **{"formatter_class": HelpFormatter, **settings, "add_help": False})
        self._examples = examples
        self._exit_codes = exit_codes or {}
        self._positionals.title, self._optionals.title = "Arguments", "Options"
        self.common = self.add_argument_group("Common options")
        """The options that every command has. Their section follows the command's own options."""
        self.common.add_argument("-h", "--help", action="help", help="Show this text and exit.")

    def add_subparsers(self, **settings: Any) -> Any:
        """Add subcommands. Their section comes before the common options."""
        subparsers = super().add_subparsers(**{"title": "Commands", **settings})
        self._action_groups.remove(self.common)
        self._action_groups.append(self.common)
        return subparsers

    def format_help(self) -> str:
        """Return the help text, with examples and exit codes where the parser has any."""
        if self._examples:
            self.epilog = help_ending(self.prog, self._examples, self._exit_codes)
        return super().format_help()

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Return the parsed arguments. Raises UsageError for those that no option or argument takes."""
        found = argparse.Namespace() if namespace is None else namespace
        words = list(sys.argv[1:] if args is None else args)
        end = words.index(_END_OF_OPTIONS) if _END_OF_OPTIONS in words else len(words)
        positionals = self._get_positional_actions()
        is_parent = any(action.nargs in (argparse.PARSER, argparse.REMAINDER) for action in positionals)
        if is_parent or not positionals or any(word in _HELP for word in words[:end]):
            found, others = super().parse_known_args(words, found)
            # A parent hands on what its subcommand parsed, which has refused the rest itself.
            if others and not is_parent:
                self._refuse(others)
            return found, others
        # argparse assigns all positional arguments at the first word between two options, so they are parsed apart.
        with self._without(positionals):
            found, others = super().parse_known_args(words[:end], found)
        unknown = [word for word in others if word.startswith("-") and word != "-" and " " not in word]
        if unknown:
            self._refuse(unknown)
        with self._nothing_required():
            found, others = super().parse_known_args([_PLAIN + word for word in (*others, *words[end + 1 :])], found)
        if others:
            self._refuse([word.removeprefix(_PLAIN) for word in others])
        return found, []

    def _refuse(self, words: Sequence[str]) -> NoReturn:
        self.error(f"unrecognized arguments: {' '.join(words)}")

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        return super()._get_value(action, arg_string.removeprefix(_PLAIN))

    @contextmanager
    def _without(self, positionals: Sequence[argparse.Action]) -> Iterator[None]:
        """Leave the positional arguments out for the length of the block. The usage in errors still shows them."""
        kept: list[tuple[argparse.Action, Any, Any]] = [(each, each.nargs, each.default) for each in positionals]
        usage = self.usage
        self.usage = self.format_usage().removeprefix("usage: ").replace("%", "%%")
        try:
            for action in positionals:
                action.nargs = action.default = argparse.SUPPRESS
            yield
        finally:
            self.usage = usage
            for action, nargs, default in kept:
                action.nargs, action.default = nargs, default

    @contextmanager
    def _nothing_required(self) -> Iterator[None]:
        """Require no option for the length of the block, after the required ones were found."""
        every: list[Any] = [*self._actions, *self._mutually_exclusive_groups]
        options = [each for each in every if each.required and getattr(each, "option_strings", True)]
        try:
            for each in options:
                each.required = False
            yield
        finally:
            for each in options:
                each.required = True

    def error(self, message: str) -> NoReturn:
        """Raise UsageError, with the usage as its hint."""
        usage = " ".join(self.format_usage().split())
        is_short = len(usage) <= _USAGE_LIMIT_CHARACTERS
        hint = f"{usage}; --help tells more" if is_short else f"{self.prog} --help shows every option"
        raise UsageError(f"{self.prog}: {message}", hint=hint)


def number(unit: str, most: float, *, least: float = 0.0, above_least: bool = False) -> Callable[[str], float]:
    """Return an argument type: a number of ``unit`` from ``least`` (or ``above_least``) to ``most``."""
    bounds = f"above {least:g} and at most {most:g}" if above_least else f"from {least:g} to {most:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (least < value <= most if above_least else least <= value <= most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit} {bounds}")
        return value

    return parse


def count(most: int) -> Callable[[str], int]:
    """Return an argument type: a whole number from 1 to ``most``."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {most}")
        return int(text)

    return parse
