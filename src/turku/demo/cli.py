"""The command `turku`, which shows the three programs working together."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from turku import __version__
from turku.core.cli import entry as entry_point
from turku.core.cli.arguments import Parser
from turku.errors import CommandFailed

_DEFAULT_PATHS = (Path("/usr/share/doc"), Path("/usr/share"), Path("/etc"))

_EPILOG = """\
the programs of Turku, each with --help:
  on a machine     turku-update-config, turku-agent-ping
  on a storage     turku-storage-update-config, turku-storage-ping
  the coordinator  turku-api
"""

_DEMO = """\
Back up and restore a real directory on this computer, to see how Turku works.

A coordinator, a storage with an sshd of its own, and a machine are started in a private directory, on loopback
addresses, as the user you are; nothing of the system is touched. The demo works on a copy of PATH, of at most 20,000
files and 256 MiB. Everything is ended and removed at the end.
"""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="turku",
        description="Backups where neither side can reach into the other.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"turku {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        help="back up and restore a real directory on this computer",
        description=_DEMO,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument("path", nargs="?", type=Path, metavar="PATH", help="the directory (default: /usr/share/doc)")
    demo.add_argument("--keep", action="store_true", help="stay until Ctrl-C, with an account for the admin site")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code. Raises TurkuError."""
    parsed = _parser().parse_args(arguments)
    # Imported late, because --version and --help do not need it.
    from turku.demo import programs
    from turku.demo.narrator import Narrator
    from turku.demo.story import Story

    programs.require()
    signal.signal(signal.SIGINT, _interrupt_once)
    path = (parsed.path or _default_path()).absolute()
    with _private_directory() as directory:
        narrator = Narrator()
        narrator.begin(directory, programs.versions())
        Story(directory, narrator).run(path, keep=parsed.keep)
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


def entry() -> NoReturn:
    """Run `turku` as a console script."""
    entry_point.run(main)
