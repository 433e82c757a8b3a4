"""Command lines: what does not parse is told like every other error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from turku.errors import UsageError

_END_OF_OPTIONS = "--"
_HELP = ("-h", "--help")
_PLAIN = "\0"
"""Before a word, it keeps argparse from taking that for an option or for ``--``. No command line has it."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose mistakes are UsageError; its subparsers are of the same class.

    Options may stand before, between and behind the other arguments. What comes after ``--`` is never an option.
    """

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Return what the arguments say, and those that are not understood."""
        found = argparse.Namespace() if namespace is None else namespace
        words = list(sys.argv[1:] if args is None else args)
        end = words.index(_END_OF_OPTIONS) if _END_OF_OPTIONS in words else len(words)
        positionals = self._get_positional_actions()
        is_parent = any(action.nargs in (argparse.PARSER, argparse.REMAINDER) for action in positionals)
        if is_parent or not positionals or any(word in _HELP for word in words[:end]):
            return super().parse_known_args(words, found)
        # argparse takes what stands between two options for all of the positional arguments, so they are taken out.
        with self._without(positionals):
            found, others = super().parse_known_args(words[:end], found)
        unknown = [word for word in others if word.startswith("-") and word != "-" and " " not in word]
        if unknown:
            return found, unknown
        with self._nothing_required():
            return super().parse_known_args([_PLAIN + word for word in (*others, *words[end + 1 :])], found)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        return super()._get_value(action, arg_string.removeprefix(_PLAIN))

    @contextmanager
    def _without(self, positionals: Sequence[argparse.Action]) -> Iterator[None]:
        """Leave the positional arguments out for the length of the block; the usage of errors still has them."""
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
        """Require no option for the length of the block: those that are were there."""
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
        usage = " ".join(self.format_usage().split()).removeprefix("usage: ")
        raise UsageError(f"{self.prog}: {message}", hint=f"usage: {usage}; --help tells more")


def seconds(longest: int) -> Callable[[str], float]:
    """A type for options: the seconds from 0 to ``longest`` that a text names."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value <= longest:
            raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to {longest}")
        return value

    return parse
