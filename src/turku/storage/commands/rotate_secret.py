"""``turku-storage rotate-secret``: give this storage a new secret."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from turku.core.cli.listing import Say
from turku.core.cli.program import Command
from turku.storage.commands.setup import configured

if TYPE_CHECKING:
    from turku.core.clock import Clock
    from turku.storage.config.model import StorageConfig


def run(_options: argparse.Namespace, configuration: StorageConfig, _clock: Clock, say: Say) -> int:
    """Replace the secret, or finish what an interrupted run began."""
    from turku.storage.registration import secret_rotation

    was_begun = secret_rotation.rotate(configuration)
    say(
        f"storage {configuration.identity.name} has a new secret"
        + (", as an earlier run had begun" if was_begun else "")
    )
    return 0


COMMAND = Command(
    "rotate-secret",
    "Give this storage a new secret, or finish what an interrupted run began.",
    configured(run),
    (
        ("Replace the secret:", "{prog}"),
        ("Show the calls that are made:", "{prog} --debug"),
        ("Replace the secret of another configuration:", "{prog} --config-dir /srv/turku-storage"),
    ),
)
