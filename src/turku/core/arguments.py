"""Command lines: what does not parse is told like every other error."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn

from turku.errors import UsageError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose mistakes are UsageError; its subparsers are of the same class."""

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
