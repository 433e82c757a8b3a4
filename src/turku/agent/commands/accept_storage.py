"""``turku-agent accept-storage``: trust a storage's new host keys, or a new storage."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from turku.agent.commands.setup import configured
from turku.core.cli.arguments import Parser
from turku.core.cli.listing import Say
from turku.core.cli.program import Command
from turku.errors import UsageError

if TYPE_CHECKING:
    from turku.agent.config.model import AgentConfig


def add_arguments(parser: Parser) -> None:
    """Add the storage and the fingerprints."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="Storage to accept, where several wait.")
    parser.add_argument(
        "--fingerprint",
        action="append",
        default=[],
        metavar="SHA256:...",
        help="Accept only the key with this fingerprint. May be given several times.",
    )


def run(options: argparse.Namespace, agent: AgentConfig, say: Say) -> int:
    """Trust the keys that wait."""
    from turku.agent.tunnel import trusted_storages

    name = options.name or _only_one(list(trusted_storages.pending(agent.state)))
    accepted, dropped = trusted_storages.accept(agent, name, fingerprints=options.fingerprint)
    for key in accepted:
        say(f"Storage {name}: trusted from now on: {trusted_storages.shown(key)}")
    for key in dropped:
        say(f"Storage {name}: no longer trusted: {trusted_storages.shown(key)}")
    return 0


def _only_one(names: list[str]) -> str:
    if len(names) != 1:
        waiting = f"several wait: {', '.join(names)}" if names else "none waits"
        raise UsageError(f"which storage is to be accepted? {waiting}", hint="turku-agent storages shows them")
    return names[0]


COMMAND = Command(
    "accept-storage",
    "Trust the new host keys of a storage, or a new storage.",
    configured(run),
    (
        ("Accept the one storage that waits:", "{prog}"),
        ("Accept one of several:", "{prog} backup1"),
        ("Accept a key whose fingerprint you were told:", "{prog} backup1 --fingerprint SHA256:..."),
    ),
    add_arguments,
)
