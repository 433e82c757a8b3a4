"""The storage's command lines: ``turku-storage-ping``, ``turku-storage-update-config`` and ``turku-storage``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from turku import __version__
from turku.core.cli import entry as program_entry
from turku.core.cli.arguments import Parser, seconds
from turku.errors import TurkuError, UsageError

if TYPE_CHECKING:
    from turku.storage.config.configuration import StorageConfig

_DEFAULT_DIRECTORY = "/etc/turku-storage"
_PRIVATE_UMASK = 0o077
_EXIT_PROBLEMS = 1
_LONGEST_WAIT_SECONDS = 86_400
_LOG = logging.getLogger(__name__)
T = TypeVar("T")


def entry() -> NoReturn:
    """``turku-storage``."""
    program_entry.run(main)


def ping_entry() -> NoReturn:
    """``turku-storage-ping``: the forced command of the machines' SSH keys."""
    program_entry.run(ping_main)


def update_config_entry() -> NoReturn:
    """``turku-storage-update-config``."""
    program_entry.run(update_config_main)


def main(arguments: Sequence[str]) -> int:
    """The exit code of ``turku-storage ARGUMENTS``."""
    if arguments[:1] == ["ping"]:
        # A machine's session loads nothing of the other commands.
        return ping_main(arguments[1:])
    from turku.storage.commands import authorized_keys, browse, catalog, drill, gc, quarantine, trash, verify

    parser = Parser(prog="turku-storage", description="Turku's storage: keeps the backups of machines.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_check(commands.add_parser("check", help="show the configuration as it is used, and what stands in the way"))
    _add_update_config(commands.add_parser("update-config", help="the same as turku-storage-update-config"))
    _add_ping(commands.add_parser("ping", help="the same as turku-storage-ping"))
    authorized_keys.add(
        commands.add_parser("authorized-keys", help="what sshd runs to ask whether a key may log in"), _add_directory
    )
    _add_directory(commands.add_parser("rotate-secret", help="give this storage a new secret"))
    _add_accept_volume(
        commands.add_parser("accept-volume", help="take what is mounted at a volume's path for that volume")
    )
    trash.add(commands.add_parser("trash", help="what retention removed: list, restore, empty"), _add_directory)
    quarantine.add(
        commands.add_parser("quarantine", help="snapshots that look like an attack: list, accept or reject them"),
        _add_directory,
    )
    gc.add(commands.add_parser("gc", help="remove from the disk what left history and the trash"), _add_directory)
    verify.add(
        commands.add_parser("verify", help="read what is kept again, tell what is damaged, and heal it"),
        _add_directory,
    )
    drill.add(commands.add_parser("drill", help="try restores, as a drill"), _add_directory)
    browse.add(commands, _add_directory)
    catalog.add(
        commands.add_parser("catalog", help="the list of what each snapshot has in it: update or rebuild it"),
        _add_directory,
    )
    options = parser.parse_args(arguments)
    run = {
        "check": _check,
        "update-config": _update_config,
        "ping": _ping,
        "authorized-keys": _authorized_keys,
        "rotate-secret": _rotate_secret,
        "accept-volume": _accept_volume,
        "trash": _trash,
        "quarantine": _quarantine,
        "gc": _gc,
        "catalog": _catalog,
        **dict.fromkeys(browse.NAMES, _browse),
        "verify": _verify,
        "drill": _drill,
    }[options.command]
    return run(options)


def ping_main(arguments: Sequence[str]) -> int:
    """The exit code of ``turku-storage-ping ARGUMENTS``."""
    parser = Parser(
        prog="turku-storage-ping",
        description="Serve one session of one machine: the forced command of the machine's SSH key. "
        "Reads the machine's request from standard input.",
    )
    _add_version(parser)
    _add_ping(parser)
    return _ping(parser.parse_args(arguments))


def update_config_main(arguments: Sequence[str]) -> int:
    """The exit code of ``turku-storage-update-config ARGUMENTS``."""
    parser = Parser(
        prog="turku-storage-update-config",
        description="Register this storage or report its space to the coordinator, and admit the machines that the "
        "coordinator assigns to it: their keys go into authorized_keys. A timer runs it every 5 minutes.",
    )
    _add_version(parser)
    _add_update_config(parser)
    return _update_config(parser.parse_args(arguments))


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")


def _add_directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config-dir",
        "-c",
        type=Path,
        default=Path(_DEFAULT_DIRECTORY),
        metavar="DIR",
        help="where config.d/*.json and *.yaml lie (default: %(default)s)",
    )
    parser.add_argument("--debug", action="store_true", help="log details, and show where an internal error came from")


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_directory(parser)


def _add_ping(parser: argparse.ArgumentParser) -> None:
    _add_directory(parser)
    parser.add_argument("uuid", metavar="UUID", help="the machine, as authorized_keys names it")


def _add_accept_volume(parser: argparse.ArgumentParser) -> None:
    _add_directory(parser)
    parser.add_argument("volume", metavar="VOLUME", help="its name in the configuration")


def _add_update_config(parser: argparse.ArgumentParser) -> None:
    _add_directory(parser)
    parser.add_argument(
        "--wait",
        "-w",
        type=seconds(_LONGEST_WAIT_SECONDS),
        default=0.0,
        metavar="SECONDS",
        help="first sleep a random part of this time, so that storages do not arrive at once",
    )
    parser.add_argument(
        "--api-auth-name",
        metavar="NAME",
        default=os.environ.get("TURKU_API_AUTH_NAME"),
        help="name of the registration, needed the first time only (or: TURKU_API_AUTH_NAME in the environment)",
    )
    parser.add_argument(
        "--api-auth-secret",
        metavar="SECRET",
        default=os.environ.get("TURKU_API_AUTH_SECRET"),
        help="secret of the registration. Other users see it in the list of processes: better put api_auth_name and "
        "api_auth_secret into a file below config.d, or TURKU_API_AUTH_SECRET into the environment",
    )
    parser.add_argument(
        "--confirm-removals",
        action="store_true",
        help="take the keys of machines that the coordinator lacks at once, even if they are most of them",
    )


def _check(options: argparse.Namespace) -> int:
    from turku.core import log
    from turku.storage.commands import check
    from turku.storage.config import configuration

    log.set_up("turku-storage", debug=options.debug)
    loaded = configuration.load(_directory(options))
    return _EXIT_PROBLEMS if check.report(loaded, print) else 0


def _authorized_keys(options: argparse.Namespace) -> int:
    from turku.core import log
    from turku.core.clock import SYSTEM_CLOCK
    from turku.storage.commands import authorized_keys
    from turku.storage.config import configuration

    os.umask(_PRIVATE_UMASK)
    loaded = configuration.load(_directory(options))
    # sshd throws away what is said on standard error.
    log.set_up("turku-storage", destination=loaded.log_file, debug=options.debug, terminal=sys.stderr.isatty())
    _logged(lambda: authorized_keys.run(options, loaded, SYSTEM_CLOCK, print))
    return 0


def _rotate_secret(options: argparse.Namespace) -> int:
    from turku.storage.registration import secret_rotation

    loaded = _configuration(options)
    was_begun = secret_rotation.rotate(loaded)
    print(f"storage {loaded.name} has a new secret" + (", as a run before this one had begun" if was_begun else ""))  # noqa: T201
    return 0


def _accept_volume(options: argparse.Namespace) -> int:
    from turku.storage.disk import volume_marks

    path = volume_marks.accept(_configuration(options), options.volume)
    print(f"{path} is volume {options.volume} from now on")  # noqa: T201
    return 0


def _trash(options: argparse.Namespace) -> int:
    from turku.core.clock import SYSTEM_CLOCK
    from turku.storage.commands import trash

    return trash.run(options, _configuration(options), SYSTEM_CLOCK, print)


def _quarantine(options: argparse.Namespace) -> int:
    from turku.storage.commands import quarantine

    return quarantine.run(options, _configuration(options), print)


def _gc(options: argparse.Namespace) -> int:
    from turku.core.clock import SYSTEM_CLOCK
    from turku.storage.commands import gc

    loaded = _configuration(options)
    return _on_all_volumes(options, loaded, gc.run(options, loaded, SYSTEM_CLOCK, print))


def _verify(options: argparse.Namespace) -> int:
    from turku.core.clock import SYSTEM_CLOCK
    from turku.storage.commands import verify

    loaded = _configuration(options)
    return _on_all_volumes(options, loaded, verify.run(options, loaded, SYSTEM_CLOCK, print))


def _drill(options: argparse.Namespace) -> int:
    from turku.core.clock import SYSTEM_CLOCK
    from turku.storage.commands import drill

    loaded = _configuration(options)
    return _on_all_volumes(options, loaded, drill.run(options, loaded, SYSTEM_CLOCK, print))


def _browse(options: argparse.Namespace) -> int:
    from turku.core.clock import SYSTEM_CLOCK
    from turku.storage.commands import browse

    return browse.run(options, _configuration(options), SYSTEM_CLOCK, print)


def _catalog(options: argparse.Namespace) -> int:
    from turku.storage.commands import catalog

    loaded = _configuration(options)
    return _on_all_volumes(options, loaded, catalog.run(options, loaded, print))


def _on_all_volumes(options: argparse.Namespace, configuration: StorageConfig, exit_code: int) -> int:
    """Return the exit code of what was done on the volumes that are there. Raises NoVolume where one is not."""
    from turku.storage.disk import volume_marks

    if getattr(options, "machine", None) is None:
        volume_marks.require_all(configuration)
    return exit_code


def _configuration(options: argparse.Namespace) -> StorageConfig:
    """The configuration, for a command of the operator that changes what is kept."""
    from turku.core import log
    from turku.storage.config import configuration

    os.umask(_PRIVATE_UMASK)
    log.set_up("turku-storage", debug=options.debug)
    return configuration.load(_directory(options))


def _update_config(options: argparse.Namespace) -> int:
    from turku.core import log
    from turku.core.clock import SYSTEM_CLOCK
    from turku.storage.config import configuration
    from turku.storage.registration import update_config

    if (options.api_auth_name is None) != (options.api_auth_secret is None):
        raise UsageError("--api-auth-name and --api-auth-secret go together")
    os.umask(_PRIVATE_UMASK)
    log.set_up("turku-storage-update-config", debug=options.debug)
    loaded = configuration.load(
        _directory(options), api_auth_name=options.api_auth_name, api_auth_secret=options.api_auth_secret
    )
    log.set_up(
        "turku-storage-update-config",
        destination=loaded.log_file,
        debug=options.debug,
        # A timer's run speaks through its log; a person's, and one that is looked into, here too.
        terminal=options.debug or sys.stderr.isatty(),
    )
    if options.wait:
        import random

        SYSTEM_CLOCK.sleep(random.SystemRandom().uniform(0, options.wait))
    _logged(lambda: update_config.update_config(loaded, confirms_removals=options.confirm_removals))
    return 0


def _ping(options: argparse.Namespace) -> int:
    from turku.policy import names
    from turku.storage.session import server

    uuid = names.machine_uuid(options.uuid)
    os.umask(_PRIVATE_UMASK)
    return _logged(lambda: server.run(_directory(options), uuid, debug=options.debug))


def _directory(options: argparse.Namespace) -> Path:
    # The forced command runs elsewhere, so that a relative directory would not be found again.
    directory: Path = options.config_dir
    return directory.absolute()


def _logged(step: Callable[[], T]) -> T:
    """Run the step; how it failed goes to the log as well as to standard error, where ``core.entry`` puts it."""
    try:
        return step()
    except BaseException as ending:
        root = logging.getLogger()
        for handler in list(root.handlers):
            if type(handler) is logging.StreamHandler:
                root.removeHandler(handler)
        if isinstance(ending, TurkuError):
            _LOG.error("%s", "; ".join((ending.message, *ending.details.splitlines())))
        elif isinstance(ending, Exception):
            _LOG.exception("internal error")
        else:
            _LOG.warning("ended early: %s", type(ending).__name__)
        raise
