"""``turku-agent ping``, and ``turku-agent-ping``: have the sources that are due backed up."""

import argparse

from turku.agent.commands import setup
from turku.agent.config import loading
from turku.agent.config.model import AgentConfig, program_words
from turku.core import log
from turku.core.cli import options as common
from turku.core.cli.program import Argument, Command
from turku.core.configuration.declaration import with_values
from turku.errors import InvalidValue, UsageError


def run(options: argparse.Namespace) -> int:
    """Ask what is due and open the sessions for it. Raises BackupFailed where a backup failed."""
    log.set_up("turku-agent-ping", debug=options.debug)
    if options.restore_storage is not None and not options.restore:
        raise UsageError("--restore-storage goes with --restore")
    agent = loading.load(options.config_dir)
    if options.restore:
        from turku.agent.restore import legacy_mode

        legacy_mode.restore(setup.settled(agent), storage_name=options.restore_storage)
        return 0
    from turku.agent import ping

    agent = _with_gonogo(agent, options.gonogo_program)
    setup.wait(options.wait)
    ping.ping(setup.settled(agent))
    return 0


def _with_gonogo(agent: AgentConfig, program: str | None) -> AgentConfig:
    if program is None:
        return agent
    try:
        return with_values(agent, gonogo_program=program_words(program))
    except InvalidValue as error:
        raise UsageError(f"--gonogo-program: {error.message}") from None


COMMANDS = (
    Command(
        "ping",
        "Ask the coordinator what is due, and let the storages fetch it through SSH tunnels.",
        run,
        (
            ("Back up what is due now:", "{prog}"),
            ("Start within four minutes, as the timer does:", "{prog} --wait 240"),
            ("Back up only while the machine is on mains power:", "{prog} --gonogo-program on_ac_power"),
        ),
        (
            common.WAIT,
            Argument(
                "--restore", action="store_true", help="Let a storage write into restore_path, and back nothing up."
            ),
            Argument(
                "--restore-storage", metavar="NAME", help="Storage to restore from, where the sources are on several."
            ),
            Argument(
                "--gonogo-program",
                metavar="COMMAND",
                help="Run this first, without a shell, and go on only when it exits with 0.",
            ),
        ),
        "A timer runs it every 5 minutes. A run with nothing due takes a moment.",
        {0: "Success, also when nothing was due.", 2: "A backup failed.", 75: "Another run is active."},
    ),
)
