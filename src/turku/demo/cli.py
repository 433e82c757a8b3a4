"""The command `turku`, which shows the three programs working together."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from turku.core.cli import entry as program_entry
from turku.core.cli.program import Argument, Command, Program
from turku.demo import programs
from turku.errors import CommandFailed

_DEFAULT_PATHS = (Path("/usr/share/doc"), Path("/usr/share"), Path("/etc"))


def run(options: argparse.Namespace) -> int:
    """Tell the demo. Raises TurkuError."""
    programs.require()
    # These need the coordinator's part, which ``require`` looks for.
    from turku.demo.narrator import Narrator
    from turku.demo.story import Story

    signal.signal(signal.SIGINT, _interrupt_once)
    path = (options.path or _default_path()).absolute()
    with _private_directory() as directory:
        narrator = Narrator()
        narrator.begin(directory, programs.versions())
        Story(directory, narrator).run(path, keep=options.keep)
    return 0


def _default_path() -> Path:
    for path in _DEFAULT_PATHS:
        try:
            if any(os.scandir(path)):
                return path
        except OSError:
            continue
    raise CommandFailed("none of the usual directories is here", hint="name one: turku demo PATH")


@contextmanager
def _private_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="turku-demo-"))
    try:
        yield directory
    finally:
        _remove(directory)


def _remove(directory: Path) -> None:
    for parent, names, _files in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            # Backups keep modes, also those of directories that their owner cannot write to.
            if not path.is_symlink():
                path.chmod(0o700)
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():
        print(f"could not remove all of {directory}", file=sys.stderr)  # noqa: T201  (after the narrator has ended)


def _interrupt_once(signal_number: int, _frame: FrameType | None) -> NoReturn:
    # A second Ctrl-C must not interrupt the end of the started programs.
    signal.signal(signal_number, signal.SIG_IGN)
    raise KeyboardInterrupt


COMMANDS = (
    Command(
        "demo",
        "Back up and restore a real directory on this computer, to see how Turku works.",
        run,
        (
            ("Back up and restore documentation:", "{prog}"),
            ("Use another directory:", "{prog} /etc"),
            ("Stay to look around in the admin site:", "{prog} --keep"),
        ),
        (
            Argument("path", nargs="?", type=Path, metavar="PATH", help="Directory (default: /usr/share/doc)."),
            Argument("--keep", action="store_true", help="Stay until Ctrl-C, with an account for the admin site."),
        ),
        "A coordinator, a storage with an sshd of its own, and a machine are started in a private directory, on "
        "loopback addresses, as your own user. Nothing of the system is touched. The demo works on a copy of PATH, "
        "of at most 20,000 files and 256 MiB. Everything is ended and removed at the end.",
    ),
)
PROGRAM = Program(
    "turku",
    "Back up machines so that neither side can reach into the other. A machine has turku-agent, a storage has "
    "turku-storage, and the coordinator has turku-api, each with a --help of its own.",
    "turku.demo",
    {"cli": ("demo",)},
    (
        ("See all programs at work:", "{prog} demo"),
        ("Use another directory:", "{prog} demo /etc"),
        ("Stay to look around in the admin site:", "{prog} demo --keep"),
    ),
    (),
)
main = PROGRAM.main
entry = partial(program_entry.run, main)
