"""The command ``config --show`` of agent and storage: every key with its value and the place that it is from."""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from turku.core import log
from turku.core.cli import listing, options
from turku.core.cli.output import json_text
from turku.core.cli.program import Argument, Command
from turku.core.configuration import declaration
from turku.core.configuration.directory import MergedFiles
from turku.core.log import one_line

DEFAULT = "default"
LoadWithFiles = Callable[[Path], tuple[msgspec.Struct, MergedFiles]]


def rows(configuration: msgspec.Struct, files: MergedFiles) -> Iterator[dict[str, Any]]:
    """Yield key, value and origin of every key at the top of the files. Secrets are ``***``, or None if missing."""
    for key in declaration.all_keys(type(configuration)):
        value = declaration.value_of(configuration, key.name)
        origin = files.place_with_line(key.name).removesuffix(f": {key.name}")
        yield {
            "key": key.name,
            "value": msgspec.to_builtins(value, enc_hook=lambda each: str(each) if each else None),
            "from": origin if key.name in files.origins else DEFAULT,
        }


def _values(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield each key below ``key`` with its value: ``anomaly.deleted_share``, ``volumes.data.path``."""
    if isinstance(value, (list, tuple)) and value and all(isinstance(each, dict) for each in value):
        value = {each["name"]: {name: each[name] for name in each if name != "name"} for each in value}
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _values(f"{key}.{name}", inner)
    else:
        yield key, json_text(value)


def command(program: str, load: LoadWithFiles) -> Command:
    """Return the subcommand ``config`` of a program."""

    def run(arguments: argparse.Namespace) -> int:
        log.set_up(program, debug=arguments.debug)
        found = rows(*load(arguments.config_dir.absolute()))
        if arguments.json:
            listing.array(found, print)
            return 0
        is_terminal = sys.stdout.isatty()
        for row in found:
            for key, text in _values(row["key"], row["value"]):
                line = (key, text) if is_terminal else (key, text, row["from"])
                print(("  " if is_terminal else "\t").join(map(one_line, line)))  # noqa: T201
            if is_terminal and row["from"] != DEFAULT:
                print(f"    from {one_line(row['from'])}")  # noqa: T201
        return 0

    return Command(
        "config",
        "Show every configuration key with its value, and the file that it is from.",
        run,
        (
            ("Show the configuration:", "{prog} --show"),
            ("Show the keys that differ from their default:", "{prog} --show | grep -v 'default$'"),
            ("Show it as JSON, for programs:", "{prog} --show --json"),
        ),
        (Argument("--show", action="store_true", required=True, help="Print every key."), options.JSON),
        details="Secrets are shown as ***. Files win over defaults, and later files over earlier ones.",
    )
