"""``turku-agent storages``: show the storages that this machine trusts, and those that wait to be accepted."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from turku.agent.commands.setup import configured
from turku.core.cli.listing import Say
from turku.core.cli.program import Command

if TYPE_CHECKING:
    from turku.agent.config.model import AgentConfig


def run(_options: argparse.Namespace, agent: AgentConfig, say: Say) -> int:
    """Print each storage with the fingerprints of its host keys."""
    from turku.agent.tunnel import trusted_storages

    say("\n".join(trusted_storages.listing(agent)))
    return 0


COMMAND = Command(
    "storages",
    "Show the storages that this machine trusts, and those that wait to be accepted.",
    configured(run),
    (
        ("Show them with the fingerprints of their host keys:", "{prog}"),
        ("Find one storage:", "{prog} | grep backup1"),
        ("Show those of another configuration:", "{prog} --config-dir /srv/turku-agent"),
    ),
)
