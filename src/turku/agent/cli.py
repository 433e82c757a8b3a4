"""The command lines of the machine's programs: turku-agent, turku-agent-ping, turku-update-config."""

from __future__ import annotations

import argparse
import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from turku import __version__
from turku.agent import configuration
from turku.agent.configuration import DEFAULT_DIRECTORY, Agent
from turku.core import entry as core_entry
from turku.core import log
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.errors import PolicyError, UsageError

_LOG = logging.getLogger(__name__)


def entry() -> NoReturn:
    """``turku-agent``."""
    core_entry.run(main)


def ping_entry() -> NoReturn:
    """``turku-agent-ping``."""
    core_entry.run(ping_main)


def update_config_entry() -> NoReturn:
    """``turku-update-config``."""
    core_entry.run(update_config_main)


def main(argv: Sequence[str]) -> int:
    """The exit code of ``turku-agent SUBCOMMAND``."""
    parser = argparse.ArgumentParser(
        prog="turku-agent",
        description="Backs up this machine: tells the coordinator what there is, and lets storages fetch what is due.",
    )
    _add_version(parser)
    subcommands = parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND", required=True)
    ping = subcommands.add_parser("ping", help="have everything backed up that is due (as turku-agent-ping)")
    _add_ping_arguments(ping)
    ping.set_defaults(run=_ping)
    update = subcommands.add_parser("update-config", help="register and send the sources (as turku-update-config)")
    _add_update_config_arguments(update)
    update.set_defaults(run=_update_config)
    check = subcommands.add_parser("check", help="check the configuration and show the sources; changes nothing")
    _add_common_arguments(check)
    check.set_defaults(run=_check)
    arguments = parser.parse_args(argv)
    code: int = arguments.run(arguments)
    return code


def ping_main(argv: Sequence[str]) -> int:
    """The exit code of ``turku-agent-ping``."""
    parser = argparse.ArgumentParser(
        prog="turku-agent-ping",
        description="Asks the coordinator what is due and lets the storages fetch it through SSH tunnels. "
        "Meant to run every few minutes; a run with nothing due takes a moment.",
    )
    _add_version(parser)
    _add_ping_arguments(parser)
    return _ping(parser.parse_args(argv))


def update_config_main(argv: Sequence[str]) -> int:
    """The exit code of ``turku-update-config``."""
    parser = argparse.ArgumentParser(
        prog="turku-update-config",
        description="Registers this machine with the coordinator and sends what it wants backed up.",
    )
    _add_version(parser)
    _add_update_config_arguments(parser)
    return _update_config(parser.parse_args(argv))


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action="version", version=f"turku {__version__}")


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config-dir",
        "-c",
        type=Path,
        default=DEFAULT_DIRECTORY,
        metavar="DIRECTORY",
        help="holds config.d and sources.d (default: %(default)s)",
    )
    parser.add_argument("--debug", action="store_true", help="say more")


def _add_wait_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait",
        "-w",
        type=_seconds,
        metavar="SECONDS",
        help="sleep a random part of this time first, so that a fleet does not arrive at once",
    )


def _add_ping_arguments(parser: argparse.ArgumentParser) -> None:
    _add_common_arguments(parser)
    _add_wait_argument(parser)
    parser.add_argument("--restore", action="store_true", help="offer restore_path to a storage for writing instead")
    parser.add_argument(
        "--restore-storage", metavar="NAME", help="the storage to restore from, where there are several"
    )
    parser.add_argument(
        "--gonogo-program",
        metavar="COMMAND",
        help="run this first and go on only when it exits with 0 (not given to a shell)",
    )


def _add_update_config_arguments(parser: argparse.ArgumentParser) -> None:
    _add_common_arguments(parser)
    _add_wait_argument(parser)
    parser.add_argument("--api-auth-name", metavar="NAME", help="name of the registration credentials")
    parser.add_argument(
        "--api-auth-secret",
        metavar="SECRET",
        help="their secret; better put it into the configuration, as other users can see a command line",
    )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 7 * 24 * 3600:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds from 0 to a week")
    return seconds


def _wait(seconds: float | None, clock: Clock = SYSTEM_CLOCK) -> None:
    if seconds:
        part = random.uniform(0, seconds)  # noqa: S311  (spreads load, guards nothing)
        _LOG.debug("sleeping for %.1f s", part)
        clock.sleep(part)


def _ping(arguments: argparse.Namespace) -> int:
    log.set_up("turku-agent-ping", debug=arguments.debug)
    if arguments.restore_storage is not None and not arguments.restore:
        raise UsageError("--restore-storage goes with --restore")
    agent = configuration.load(arguments.config_dir)
    if arguments.restore:
        from turku.agent import restore

        restore.restore(agent, storage_name=arguments.restore_storage)
        return 0
    from turku.agent import ping

    agent = _with_gonogo(agent, arguments.gonogo_program)
    _wait(arguments.wait)
    ping.ping(agent)
    return 0


def _with_gonogo(agent: Agent, program: str | None) -> Agent:
    if program is None:
        return agent
    try:
        return replace(agent, gonogo_program=configuration.program_words(program))
    except PolicyError as error:
        raise UsageError(f"--gonogo-program: {error.message}") from None


def _update_config(arguments: argparse.Namespace) -> int:
    log.set_up("turku-update-config", debug=arguments.debug)
    from turku.agent import registration

    agent = configuration.load(
        arguments.config_dir,
        api_auth_name=arguments.api_auth_name,
        api_auth_secret=arguments.api_auth_secret,
    )
    _wait(arguments.wait)
    registration.update_config(agent)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    log.set_up("turku-agent", debug=arguments.debug)
    agent = configuration.load(arguments.config_dir)
    lines = [
        f"Coordinator: {agent.api_url}",
        f"Machine UUID: {agent.machine_uuid or 'none yet: turku-update-config registers this machine'}",
        f"Machine unit: {agent.unit_name}",
        "Sources:" if agent.sources else f"Sources: none in {agent.config_dir / 'sources.d'}",
    ]
    for source in agent.sources.values():
        missing = "" if Path(source.path).is_dir() else "  (no such directory now)"
        lines.append(f"    {source.name}: {log.one_line(source.path)}{missing}")
        lines += [
            f"        {log.one_line(f'{key}: {value}')}" for key, value in source.options.items() if key != "path"
        ]
    print("\n".join(lines))  # noqa: T201
    return 0
