"""The command ``config --show`` of agent and storage: every key with its value and the place that it is from."""

import argparse
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


def command(program: str, load: LoadWithFiles) -> Command:
    """Return the subcommand ``config`` of a program."""

    def run(arguments: argparse.Namespace) -> int:
        log.set_up(program, debug=arguments.debug)
        found = rows(*load(arguments.config_dir.absolute()))
        if arguments.json:
            listing.array(found, print)
        else:
            shown = ([row["key"], json_text(row["value"]), row["from"]] for row in found)
            listing.show(["key", "value", "from"], shown, print)
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
        (
            Argument("--show", action="store_true", required=True, help="Print every key."),
            options.JSON,
        ),
        details="Secrets are shown as ***. Files win over defaults, and later files over earlier ones.",
    )
