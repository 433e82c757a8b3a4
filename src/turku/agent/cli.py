"""The command lines of a machine: turku-agent, turku-agent-ping and turku-update-config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from turku.agent.commands import browse, check, config, machine_keys, ping, restore, storages, update_config
from turku.agent.config.model import DEFAULT_DIRECTORY
from turku.core.cli import entry as core_entry
from turku.core.cli import options, program
from turku.core.cli.arguments import Parser

PROGRAM = program.CommandGroup(
    "turku-agent",
    "Back up and restore this machine.",
    (
        ping.COMMAND,
        update_config.COMMAND,
        check.COMMAND,
        config.COMMAND,
        *browse.COMMANDS,
        restore.COMMAND,
        storages.COMMAND,
        storages.ACCEPT_COMMAND,
        machine_keys.ROTATE_COMMAND,
        machine_keys.RE_ENROL_COMMAND,
    ),
    (
        ("Check the configuration, then send it to the coordinator:", "{prog} check && {prog} update-config"),
        ("Show the versions of a file:", "{prog} versions home alice/offer.odt"),
        ("Restore a directory as it was yesterday:", "{prog} restore home alice/letters --at yesterday"),
    ),
)


def entry() -> NoReturn:
    """Run ``turku-agent``."""
    core_entry.run(main)


def ping_entry() -> NoReturn:
    """Run ``turku-agent-ping``."""
    core_entry.run(ping_main)


def update_config_entry() -> NoReturn:
    """Run ``turku-update-config``."""
    core_entry.run(update_config_main)


def main(arguments: Sequence[str]) -> int:
    """Return the exit code of ``turku-agent ARGUMENTS``."""
    return program.run(PROGRAM.parser(_add_common), arguments)


def ping_main(arguments: Sequence[str]) -> int:
    """Return the exit code of ``turku-agent-ping ARGUMENTS``."""
    return program.run(ping.COMMAND.parser("turku-agent-ping", _add_common), arguments)


def update_config_main(arguments: Sequence[str]) -> int:
    """Return the exit code of ``turku-update-config ARGUMENTS``."""
    return program.run(update_config.COMMAND.parser("turku-update-config", _add_common), arguments)


def _add_common(parser: Parser) -> None:
    options.add_common(parser, default_directory=DEFAULT_DIRECTORY, holds="config.d and sources.d")
