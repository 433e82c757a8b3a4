"""``turku-agent storages`` and ``accept-storage``: the storages that this machine trusts, and those that wait."""

import argparse

from turku.agent.commands.setup import configured
from turku.agent.config.model import AgentConfig
from turku.agent.tunnel import trusted_storages
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command
from turku.errors import UsageError


def show(_options: argparse.Namespace, agent: AgentConfig, say: Say) -> int:
    """Print each storage with the fingerprints of its host keys."""
    say("\n".join(trusted_storages.listing(agent)))
    return 0


def accept(options: argparse.Namespace, agent: AgentConfig, say: Say) -> int:
    """Trust the keys that wait."""
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


COMMANDS = (
    Command(
        "storages",
        "Show the storages that this machine trusts, and those that wait to be accepted.",
        configured(show),
        (
            ("Show them with the fingerprints of their host keys:", "{prog}"),
            ("Show only those that wait:", "{prog} | sed -n '/^Waiting/,$p'"),
            ("Find the storage that has a key:", "{prog} | grep -B 3 SHA256:..."),
        ),
    ),
    Command(
        "accept-storage",
        "Trust the new host keys of a storage, or a new storage.",
        configured(accept),
        (
            ("Accept the one storage that waits:", "{prog}"),
            ("Accept one of several:", "{prog} backup1"),
            ("Accept a key whose fingerprint you were told:", "{prog} backup1 --fingerprint SHA256:..."),
        ),
        (
            Argument("name", nargs="?", metavar="NAME", help="Storage to accept, where several wait."),
            Argument(
                "--fingerprint",
                action="append",
                default=[],
                metavar="SHA256:...",
                help="Accept only the key with this fingerprint. May be given several times.",
            ),
        ),
    ),
)
