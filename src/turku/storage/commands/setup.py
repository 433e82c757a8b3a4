"""The beginning and the end of subcommands: umask, logging, the configuration, and volumes that are absent."""

import argparse
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from turku.core import log
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Run
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.errors import TurkuError
from turku.policy.machine_choice import MACHINE_HELP

# What is imported here is imported by every session, before it has a slot (threats M11).
if TYPE_CHECKING:
    from turku.storage.config.model import StorageConfig
    from turku.storage.disk.source_directory import SourceDirectory

EXIT_PROBLEMS = 1
PRIVATE_UMASK = 0o077
_LOG = logging.getLogger(__name__)
T = TypeVar("T")

MACHINE = Argument("--machine", metavar="MACHINE", help=f"Only this machine: {MACHINE_HELP}.")
SELECTION = (MACHINE, Argument("--source", metavar="SOURCE", help="Only this source."))

Step = Callable[[argparse.Namespace, "StorageConfig", Clock, Say], int]


def configured(step: Step, *, needs_all_volumes: bool = False) -> Run:
    """Return a command that loads the configuration and takes the step with it.

    With ``needs_all_volumes`` the command ends as ``require_volumes``: the step sees to the other volumes first.
    """

    def run(options: argparse.Namespace) -> int:
        from turku.storage.config import loading as configuration

        os.umask(PRIVATE_UMASK)
        log.set_up("turku-storage", debug=options.debug)
        loaded = configuration.load(config_dir(options))
        exit_code = step(options, loaded, SYSTEM_CLOCK, print)
        if needs_all_volumes:
            require_volumes(options, loaded)
        return exit_code

    return run


def require_volumes(options: argparse.Namespace, configuration: "StorageConfig") -> None:
    """Raise NoVolume if a volume is absent, unless one machine was named."""
    from turku.storage.disk import volume_marks

    if getattr(options, "machine", None) is None:
        volume_marks.require_all(configuration)


def selected(options: argparse.Namespace, configuration: "StorageConfig") -> "tuple[SourceDirectory, ...]":
    """Return the sources that ``--machine`` and ``--source`` name. Raises as ``source_lookup.find_sources``."""
    from turku.storage.disk.source_lookup import find_sources

    return find_sources(configuration, machine=options.machine, source=options.source)


def known_columns(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the columns of a table to which ``--machine`` and ``--source`` give one value."""
    return tuple(column for column in ("machine", "source") if getattr(options, column))


def machine_names(configuration: "StorageConfig") -> "Callable[[str], str]":
    """Return a function that gives for a machine's UUID what a table shows: its name, or how the UUID begins.

    A program gets the UUID.
    """
    from turku.storage.disk.machine_links import known_names

    if not sys.stdout.isatty():
        return str
    known = {uuid: min(names) for uuid, names in known_names(configuration.state).items()}
    shared = {name for name, count in Counter(known.values()).items() if count > 1}
    return lambda uuid: known[uuid] if uuid in known and known[uuid] not in shared else uuid[:8]


def config_dir(options: argparse.Namespace) -> Path:
    """Return the absolute directory: the forced command runs elsewhere, where a relative one is not found."""
    directory: Path = options.config_dir
    return directory.absolute()


def logged(step: Callable[[], T]) -> T:
    """Take the step. A failure goes to the log as well as to standard error, where ``core.cli.entry`` prints it."""
    try:
        return step()
    except BaseException as ending:
        if not log.leave_terminal():
            raise
        if isinstance(ending, TurkuError):
            _LOG.error("%s", "; ".join((ending.message, *ending.details.splitlines())))
        elif isinstance(ending, Exception):
            _LOG.exception("internal error")
        else:
            _LOG.warning("ended early: %s", type(ending).__name__)
        raise
