"""``turku-agent update-config``, ``rotate-keys`` and ``re-enrol``: this machine's identity at the coordinator."""

import argparse

from turku.agent import registration
from turku.agent.commands import setup
from turku.agent.config import loading
from turku.agent.config.model import AgentConfig
from turku.agent.identity import rotation
from turku.core import log
from turku.core.cli import options as common
from turku.core.cli import person
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command
from turku.errors import UsageError


def update_config(options: argparse.Namespace) -> int:
    """Register this machine, and send what it wants backed up."""
    log.set_up("turku-update-config", debug=options.debug)
    agent = loading.load(
        options.config_dir, api_auth_name=options.api_auth_name, api_auth_secret=options.api_auth_secret
    )
    setup.wait(options.wait)
    registration.update_config(setup.settled(agent))
    return 0


def rotate_keys(_options: argparse.Namespace, agent: AgentConfig, say: Say) -> int:
    """Replace secret and key."""
    rotation.rotate_keys(agent)
    say(f"{agent.identity.machine_uuid} has a new secret and a new SSH key.")
    say("Storages accept the key within minutes. Until then the old one is offered as well.")
    return 0


def re_enrol(options: argparse.Namespace, before: AgentConfig, say: Say) -> int:
    """Exchange the code for the old identity."""
    agent = rotation.re_enrol(before, options.code or typed_code())
    if before.identity.machine_uuid not in (None, agent.identity.machine_uuid):
        say(f"This machine was {before.identity.machine_uuid}; remove that one at the coordinator.")
    say(f"This machine is {agent.identity.machine_uuid}, with its history.")
    say("Put its sources into sources.d as they were, then run: turku-update-config")
    return 0


def typed_code() -> str:
    """Return the code from the terminal, unseen, or from standard input. Raises UsageError."""
    code = (person.secret("Code").reveal() if person.is_there() else person.input_line()).strip()
    if not code:
        raise UsageError("re-enrol needs a code", hint="an operator gets it by: turku-api machine re-enrol MACHINE")
    return code


COMMANDS = (
    Command(
        "update-config",
        "Register this machine with the coordinator, and send what it wants backed up.",
        update_config,
        (
            ("Send the sources after a change:", "{prog}"),
            ("Check them first:", "turku-agent check && {prog}"),
            ("Register with an Auth that no file has:", "{prog} --api-auth-name web --api-auth-secret SECRET"),
        ),
        (common.WAIT, *common.REGISTRATION),
    ),
    Command(
        "rotate-keys",
        "Give this machine a new secret and a new SSH key.",
        setup.configured(rotate_keys),
        (
            ("Replace secret and key:", "{prog}"),
            ("Replace them, and see that backups still work:", "{prog} && turku-agent ping"),
            ("Replace those of another machine:", "ssh root@web-2 {prog}"),
        ),
    ),
    Command(
        "re-enrol",
        "Give a reinstalled machine its old identity and history back.",
        setup.configured(re_enrol),
        (
            ("Type the code when asked:", "{prog}"),
            ("Read the code from a file:", "{prog} < code"),
            ("Send the sources afterwards:", "{prog} && turku-agent update-config"),
        ),
        (
            Argument(
                "code",
                nargs="?",
                metavar="CODE",
                help="Code that turku-api machine re-enrol printed. Better type it when asked: others see a command "
                "line.",
            ),
        ),
    ),
)
