"""The command lines of the machine's programs: turku-agent, turku-agent-ping, turku-update-config."""

from __future__ import annotations

import argparse
import logging
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from turku import __version__
from turku.agent import identity
from turku.agent.commands import browse
from turku.agent.commands import restore as recovery_command
from turku.agent.config import loading as configuration
from turku.agent.config.model import DEFAULT_DIRECTORY, AgentConfig, program_words
from turku.core import log
from turku.core.cli import entry as core_entry
from turku.core.cli.arguments import Parser, seconds
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.configuration.declaration import with_values
from turku.errors import InvalidValue, UsageError

_LOG = logging.getLogger(__name__)
_LONGEST_WAIT_SECONDS = 7 * 24 * 3600
_EXIT_PROBLEMS = 1


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
    parser = Parser(
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
    _add_identity_subcommands(subcommands)
    _add_storage_subcommands(subcommands)
    browse.add(subcommands, _add_common_arguments)
    recovery_command.add(subcommands, _add_common_arguments)
    check = subcommands.add_parser("check", help="check the configuration and show the sources; changes nothing")
    _add_common_arguments(check)
    check.set_defaults(run=_check)
    parser.set_defaults(run=_history)
    arguments = parser.parse_args(argv)
    code: int = arguments.run(arguments)
    return code


def _add_identity_subcommands(subcommands: argparse._SubParsersAction[Parser]) -> None:
    rotate = subcommands.add_parser("rotate-keys", help="give this machine a new secret and a new SSH key")
    _add_common_arguments(rotate)
    rotate.set_defaults(run=_rotate_keys)
    re_enrol = subcommands.add_parser(
        "re-enrol", help="take a reinstalled machine's old place, by an operator's one-time code"
    )
    _add_common_arguments(re_enrol)
    re_enrol.add_argument(
        "code",
        nargs="?",
        metavar="CODE",
        help="what turku-api machine re-enrol printed; better left out and typed, as other users see a command line",
    )
    re_enrol.set_defaults(run=_re_enrol)


def _add_storage_subcommands(subcommands: argparse._SubParsersAction[Parser]) -> None:
    storages = subcommands.add_parser("storages", help="show the storages this machine trusts, and those that wait")
    _add_common_arguments(storages)
    storages.set_defaults(run=_storages)
    accept = subcommands.add_parser("accept-storage", help="trust a storage's new host keys, or a new storage")
    _add_common_arguments(accept)
    accept.add_argument("name", nargs="?", metavar="NAME", help="the storage, where several wait")
    accept.add_argument(
        "--fingerprint",
        action="append",
        default=[],
        metavar="SHA256:...",
        help="accept only the key that has it; may be given several times",
    )
    accept.set_defaults(run=_accept_storage)


def ping_main(argv: Sequence[str]) -> int:
    """The exit code of ``turku-agent-ping``."""
    parser = Parser(
        prog="turku-agent-ping",
        description="Asks the coordinator what is due and lets the storages fetch it through SSH tunnels. "
        "Meant to run every few minutes; a run with nothing due takes a moment.",
    )
    _add_version(parser)
    _add_ping_arguments(parser)
    return _ping(parser.parse_args(argv))


def update_config_main(argv: Sequence[str]) -> int:
    """The exit code of ``turku-update-config``."""
    parser = Parser(
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
        type=seconds(_LONGEST_WAIT_SECONDS),
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


def _wait(longest_seconds: float | None, clock: Clock = SYSTEM_CLOCK) -> None:
    if longest_seconds:
        part = random.uniform(0, longest_seconds)  # noqa: S311  (spreads load, guards nothing)
        _LOG.debug("sleeping for %.1f s", part)
        clock.sleep(part)


def _ping(arguments: argparse.Namespace) -> int:
    log.set_up("turku-agent-ping", debug=arguments.debug)
    if arguments.restore_storage is not None and not arguments.restore:
        raise UsageError("--restore-storage goes with --restore")
    agent = configuration.load(arguments.config_dir)
    if arguments.restore:
        from turku.agent.restore import legacy_mode

        legacy_mode.restore(_settled(agent), storage_name=arguments.restore_storage)
        return 0
    from turku.agent import ping

    agent = _with_gonogo(agent, arguments.gonogo_program)
    _wait(arguments.wait)
    ping.ping(_settled(agent))
    return 0


def _with_gonogo(agent: AgentConfig, program: str | None) -> AgentConfig:
    if program is None:
        return agent
    try:
        return with_values(agent, gonogo_program=program_words(program))
    except InvalidValue as error:
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
    registration.update_config(_settled(agent))
    return 0


def _settled(agent: AgentConfig) -> AgentConfig:
    """The machine, after a change of its secret and key that a killed run left behind is finished, or swept away."""
    if not identity.has_staged_files(agent):
        return agent
    from turku.agent import rotation

    agent = rotation.resume(agent)
    rotation.remove_leftovers(agent)
    return agent


def _rotate_keys(arguments: argparse.Namespace) -> int:
    log.set_up("turku-agent", debug=arguments.debug)
    from turku.agent import rotation

    agent = configuration.load(arguments.config_dir)
    rotation.rotate_keys(agent)
    print(  # noqa: T201
        f"{agent.identity.machine_uuid} has a new secret and a new SSH key.\n"
        "Storages take the key within minutes; until then the old one is offered beside it."
    )
    return 0


def _re_enrol(arguments: argparse.Namespace) -> int:
    log.set_up("turku-agent", debug=arguments.debug)
    from turku.agent import rotation

    before = configuration.load(arguments.config_dir)
    agent = rotation.re_enrol(before, arguments.code or _typed_code())
    if before.identity.machine_uuid not in (None, agent.identity.machine_uuid):
        print(f"This machine was {before.identity.machine_uuid}; remove that one at the coordinator.")  # noqa: T201
    print(  # noqa: T201
        f"This machine is {agent.identity.machine_uuid}, with its history.\n"
        "Put its sources into sources.d as they were, then run: turku-update-config"
    )
    return 0


def _typed_code() -> str:
    """The code from the terminal, unseen, or from standard input. Raises UsageError."""
    if sys.stdin is not None and sys.stdin.isatty():
        import getpass

        code = getpass.getpass("Code: ").strip()
    else:
        code = sys.stdin.readline(4096).strip() if sys.stdin is not None else ""
    if not code:
        raise UsageError("re-enrol needs a code", hint="an operator gets it by: turku-api machine re-enrol MACHINE")
    return code


def _history(arguments: argparse.Namespace) -> int:
    """What is kept of this machine: looked at, or brought back."""
    log.set_up("turku-agent", debug=arguments.debug)
    agent = _settled(configuration.load(arguments.config_dir))
    if hasattr(arguments, "browse"):
        return browse.run(arguments, agent, print)
    return recovery_command.run(arguments, agent, print)


def _storages(arguments: argparse.Namespace) -> int:
    log.set_up("turku-agent", debug=arguments.debug)
    from turku.agent import trusted_storages

    agent = configuration.load(arguments.config_dir)
    print("\n".join(trusted_storages.listing(agent)))  # noqa: T201
    return 0


def _accept_storage(arguments: argparse.Namespace) -> int:
    log.set_up("turku-agent", debug=arguments.debug)
    from turku.agent import trusted_storages

    agent = configuration.load(arguments.config_dir)
    name = arguments.name or _only_one_that_waits(list(trusted_storages.pending(agent)))
    accepted, dropped = trusted_storages.accept(agent, name, fingerprints=arguments.fingerprint)
    for key in accepted:
        print(f"Storage {name}: trusted from now on: {trusted_storages.shown(key)}")  # noqa: T201
    for key in dropped:
        print(f"Storage {name}: no longer trusted: {trusted_storages.shown(key)}")  # noqa: T201
    return 0


def _only_one_that_waits(names: list[str]) -> str:
    if len(names) != 1:
        waiting = f"several wait: {', '.join(names)}" if names else "none waits"
        raise UsageError(f"which storage is to be accepted? {waiting}", hint="turku-agent storages shows them")
    return names[0]


def _obeyed(agent: AgentConfig) -> str:
    directories = ", ".join(log.one_line(str(path)) for path in agent.restore.remote_restore)
    return f"below {directories}" if directories else "refused (remote_restore)"


def _check(arguments: argparse.Namespace) -> int:
    log.set_up("turku-agent", debug=arguments.debug)
    from turku.agent.capture import declared_sources, source_warnings
    from turku.agent.restore import staging_directory

    agent = configuration.load(arguments.config_dir)
    lines = [
        f"Coordinator: {agent.api.api_url}",
        f"Machine UUID: {agent.identity.machine_uuid or 'none yet: turku-update-config registers this machine'}",
        f"Machine unit: {agent.identity.unit_name}",
        f"Restores that the coordinator asks for: {_obeyed(agent)}",
        "Sources:" if agent.sources else f"Sources: none in {agent.config_dir / 'sources.d'}",
    ]
    problems = 0
    for source in agent.sources.values():
        lines.append(f"    {source.name}: {log.one_line(source.path)}")
        lines += [
            f"        {log.one_line(f'{key}: {value}')}" for key, value in source.options.items() if key != "path"
        ]
        for remark in source_warnings.warnings(source):
            problems += remark.is_problem
            where = f" ({source.place})" if remark.is_problem and source.place else ""
            lines.append(f"        {'PROBLEM' if remark.is_problem else 'note'}: {log.one_line(remark.text + where)}")
    for name in declared_sources.missing(agent):
        problems += 1
        lines.append(
            f"PROBLEM: source {log.one_line(name)} was declared at the last turku-update-config and is not in "
            f"{agent.config_dir / 'sources.d'} now: the next one ends its backups"
        )
    lines += [
        f"note: {log.one_line(str(left))}: a restore goes on there, or did not end; the next one into that directory "
        "uses or removes it"
        for left in staging_directory.existing(agent)
    ]
    print("\n".join(lines))  # noqa: T201
    return _EXIT_PROBLEMS if problems else 0
