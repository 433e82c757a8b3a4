"""``turku-agent rotate-keys``: give this machine a new secret and a new SSH key."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from turku.agent.commands.setup import configured
from turku.core.cli.listing import Say
from turku.core.cli.program import Command

if TYPE_CHECKING:
    from turku.agent.config.model import AgentConfig


def run(_options: argparse.Namespace, agent: AgentConfig, say: Say) -> int:
    """Replace secret and key."""
    from turku.agent.identity import rotation

    rotation.rotate_keys(agent)
    say(f"{agent.identity.machine_uuid} has a new secret and a new SSH key.")
    say("Storages accept the key within minutes. Until then the old one is offered as well.")
    return 0


COMMAND = Command(
    "rotate-keys",
    "Give this machine a new secret and a new SSH key.",
    configured(run),
    (
        ("Replace secret and key:", "{prog}"),
        ("Show the calls that are made:", "{prog} --debug"),
        ("Replace those of another configuration:", "{prog} --config-dir /srv/turku-agent"),
    ),
)
