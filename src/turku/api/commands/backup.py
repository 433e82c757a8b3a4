"""The command `turku-api backup`: a copy of the coordinator itself, from which `turku-api recover` brings it back."""

import argparse
import os
from pathlib import Path

from django.conf import settings

from turku.api.commands.setup import configured
from turku.api.project.recovery import backup
from turku.core.cli.arguments import count
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command
from turku.core.clock import SYSTEM_CLOCK
from turku.core.units import count_of

DEFAULT_DIRECTORY = Path("/var/backups/turku-api")
_LONGEST = 10_000


def run(options: argparse.Namespace, say: Say) -> int:
    """Make a backup, and remove the oldest ones."""
    directory = options.directory.absolute()
    made = backup.make(directory, settings.TURKU_ENVIRONMENT, os.environ, now=SYSTEM_CLOCK.now())
    old = backup.remove_old(directory, keep=options.keep)
    say(f"{made} is complete." + (f" {count_of(len(old), 'older backup')} removed." if old else ""))
    return 0


COMMANDS = (
    Command(
        "backup",
        "Copy the database, the keys and the settings of the coordinator into a directory.",
        configured(run),
        (
            ("Make a backup, as the timer does:", "{prog}"),
            ("Make one on a mounted disk, and keep 30:", "{prog} /mnt/disk/turku-api --keep 30"),
            ("Make one before an upgrade:", "{prog} && turku-api migrate"),
        ),
        (
            Argument(
                "directory",
                nargs="?",
                type=Path,
                default=DEFAULT_DIRECTORY,
                metavar="DIRECTORY",
                help="Directory of the backups, each a directory named by its time (default: %(default)s).",
            ),
            Argument(
                "--keep",
                type=count(_LONGEST),
                default=7,
                metavar="N",
                help="Remove all but the newest N backups there (default: %(default)s).",
            ),
        ),
        "The coordinator may run meanwhile. Let this host's own agent back the directory up, because a backup on the "
        "same disk is lost with it.",
    ),
)
