"""``turku-storage accept-volume``: take what is mounted at a volume's path for that volume."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from turku.core.cli.arguments import Parser
from turku.core.cli.listing import Say
from turku.core.cli.program import Command
from turku.storage.commands.setup import configured

if TYPE_CHECKING:
    from turku.core.clock import Clock
    from turku.storage.config.model import StorageConfig


def add_arguments(parser: Parser) -> None:
    """Add the volume."""
    parser.add_argument("volume", metavar="VOLUME", help="Name of the volume in the configuration.")


def run(options: argparse.Namespace, configuration: StorageConfig, _clock: Clock, say: Say) -> int:
    """Write the volume's mark anew."""
    from turku.storage.disk import volume_marks

    path = volume_marks.accept(configuration, options.volume)
    say(f"{path} is volume {options.volume} from now on")
    return 0


COMMAND = Command(
    "accept-volume",
    "Take what is mounted at a volume's path for that volume.",
    configured(run),
    (
        ("Accept a disk that replaces the former one:", "{prog} data"),
        ("See first what is mounted there:", "findmnt --target /srv/backups && {prog} data"),
        ("Accept it, and check the storage:", "{prog} data && turku-storage check"),
    ),
    add_arguments,
)
