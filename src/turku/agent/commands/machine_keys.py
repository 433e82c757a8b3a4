"""``turku-agent rotate-keys`` and ``re-enrol``: a new secret and SSH key, or a reinstalled machine's old place."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from turku.agent.commands.setup import configured
from turku.core.cli.arguments import Parser
from turku.core.cli.listing import Say
from turku.core.cli.program import Command
from turku.errors import UsageError

if TYPE_CHECKING:
    from turku.agent.config.model import AgentConfig


def run_rotate(_options: argparse.Namespace, agent: AgentConfig, say: Say) -> int:
    """Replace secret and key."""
    from turku.agent.identity import rotation

    rotation.rotate_keys(agent)
    say(f"{agent.identity.machine_uuid} has a new secret and a new SSH key.")
    say("Storages accept the key within minutes. Until then the old one is offered as well.")
    return 0


ROTATE_COMMAND = Command(
    "rotate-keys",
    "Give this machine a new secret and a new SSH key.",
    configured(run_rotate),
    (
        ("Replace secret and key:", "{prog}"),
        ("Show the calls that are made:", "{prog} --debug"),
        ("Replace those of another configuration:", "{prog} --config-dir /srv/turku-agent"),
    ),
)


def add_arguments(parser: Parser) -> None:
    """Add the code."""
    parser.add_argument(
        "code",
        nargs="?",
        metavar="CODE",
        help="Code that turku-api machine re-enrol printed. Better type it when asked: others see a command line.",
    )


def run_re_enrol(options: argparse.Namespace, before: AgentConfig, say: Say) -> int:
    """Exchange the code for the old identity."""
    from turku.agent.identity import rotation

    agent = rotation.re_enrol(before, options.code or _typed_code())
    if before.identity.machine_uuid not in (None, agent.identity.machine_uuid):
        say(f"This machine was {before.identity.machine_uuid}; remove that one at the coordinator.")
    say(f"This machine is {agent.identity.machine_uuid}, with its history.")
    say("Put its sources into sources.d as they were, then run: turku-update-config")
    return 0


def _typed_code() -> str:
    """Return the code from the terminal, unseen, or from standard input. Raises UsageError."""
    if sys.stdin is not None and sys.stdin.isatty():
        import getpass

        code = getpass.getpass("Code: ").strip()
    else:
        code = sys.stdin.readline(4096).strip() if sys.stdin is not None else ""
    if not code:
        raise UsageError("re-enrol needs a code", hint="an operator gets it by: turku-api machine re-enrol MACHINE")
    return code


RE_ENROL_COMMAND = Command(
    "re-enrol",
    "Give a reinstalled machine its old identity and history back.",
    configured(run_re_enrol),
    (
        ("Type the code when asked:", "{prog}"),
        ("Read the code from a file:", "{prog} < code"),
        ("Give the code on the command line:", "{prog} CODE"),
    ),
    add_arguments,
)
