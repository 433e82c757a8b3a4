"""The command lines of a storage: turku-storage, turku-storage-ping and turku-storage-update-config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from turku.core.cli import entry as program_entry
from turku.core.cli import options, program
from turku.core.cli.arguments import Parser

_DEFAULT_DIRECTORY = Path("/etc/turku-storage")


def entry() -> NoReturn:
    """Run ``turku-storage``."""
    program_entry.run(main)


def ping_entry() -> NoReturn:
    """Run ``turku-storage-ping``, the forced command of the machines' SSH keys."""
    program_entry.run(ping_main)


def update_config_entry() -> NoReturn:
    """Run ``turku-storage-update-config``."""
    program_entry.run(update_config_main)


def main(arguments: Sequence[str]) -> int:
    """Return the exit code of ``turku-storage ARGUMENTS``."""
    if arguments[:1] == ["ping"]:
        # A machine's session loads nothing of the other commands.
        return ping_main(arguments[1:])
    return program.run(_program().parser(_add_common), arguments)


def ping_main(arguments: Sequence[str]) -> int:
    """Return the exit code of ``turku-storage-ping ARGUMENTS``."""
    from turku.storage.commands import ping

    return program.run(ping.COMMAND.parser("turku-storage-ping", _add_common), arguments)


def update_config_main(arguments: Sequence[str]) -> int:
    """Return the exit code of ``turku-storage-update-config ARGUMENTS``."""
    from turku.storage.commands import update_config

    return program.run(update_config.COMMAND.parser("turku-storage-update-config", _add_common), arguments)


def _program() -> program.CommandGroup:
    from turku.storage.commands import (
        accept_volume,
        authorized_keys,
        browse,
        catalog,
        check,
        config,
        drill,
        gc,
        ping,
        quarantine,
        retention,
        rotate_secret,
        trash,
        update_config,
        verify,
    )

    return program.CommandGroup(
        "turku-storage",
        "Keep the backups of machines.",
        (
            check.COMMAND,
            config.COMMAND,
            update_config.COMMAND,
            *browse.COMMANDS,
            retention.COMMAND,
            trash.COMMAND,
            gc.COMMAND,
            quarantine.COMMAND,
            verify.COMMAND,
            drill.COMMAND,
            catalog.COMMAND,
            accept_volume.COMMAND,
            rotate_secret.COMMAND,
            authorized_keys.COMMAND,
            ping.COMMAND,
        ),
        (
            ("Check the storage:", "{prog} check"),
            ("Show the snapshots of one machine:", "{prog} snapshots --machine web-1"),
            ("Read an hour's worth of stored files again:", "{prog} verify --budget 3600"),
        ),
    )


def _add_common(parser: Parser) -> None:
    options.add_common(parser, default_directory=_DEFAULT_DIRECTORY, holds="config.d")
