"""``turku-storage authorized-keys``: the AuthorizedKeysCommand of sshd, which admits new machines at once.

Anyone who reaches sshd can make it run this command with any key. So the coordinator is not asked more often than
``update_config.refresh`` allows.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import TYPE_CHECKING

from turku.core.cli.arguments import Parser
from turku.core.cli.listing import Say
from turku.core.cli.program import Command
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import InvalidValue
from turku.storage.commands.setup import PRIVATE_UMASK, config_dir, logged

if TYPE_CHECKING:
    from turku.core.clock import Clock
    from turku.storage.config.model import StorageConfig

_LOG = logging.getLogger(__name__)


def add_arguments(parser: Parser) -> None:
    """Add what sshd tells of the login."""
    parser.add_argument("user", metavar="USER", help="User that logs in (%%u in sshd_config).")
    parser.add_argument("type", metavar="TYPE", help="Type of the offered key (%%t).")
    parser.add_argument("key", metavar="KEY", help="Offered key in Base64 (%%k).")


def _run(options: argparse.Namespace) -> int:
    from turku.core import log
    from turku.storage.config import loading as configuration

    os.umask(PRIVATE_UMASK)
    loaded = configuration.load(config_dir(options))
    # sshd discards standard error.
    log.set_up("turku-storage", destination=loaded.state.log_file, debug=options.debug, terminal=sys.stderr.isatty())
    logged(lambda: run(options, loaded, SYSTEM_CLOCK, print))
    return 0


def run(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> None:
    """Print the line that admits the key, or nothing. Raises ConfigurationError, and as ``update_config.refresh``."""
    from turku.policy import ssh_key
    from turku.storage.registration import admitted_keys

    # sshd_config may name this program for every user. Machines log in as this one alone.
    if options.user != configuration.ssh.authorized_keys_user:
        _LOG.debug("nobody logs in as %s with a machine's key", options.user)
        return
    try:
        key = ssh_key.ssh_public_key(f"{options.type} {options.key}")
    except InvalidValue as error:
        _LOG.debug("no machine has such a key: %s", error.message)
        return
    line = admitted_keys.line_of(configuration.state, key)
    if line is None:
        from turku.storage.registration import update_config

        update_config.refresh(configuration, clock=clock)
        line = admitted_keys.line_of(configuration.state, key)
    if line is not None:
        say(line)


COMMAND = Command(
    "authorized-keys",
    "Print the line that admits a machine's key, for AuthorizedKeysCommand of sshd.",
    _run,
    (
        ("In sshd_config, within the Match block of the user:", "AuthorizedKeysCommand {prog} %u %t %k"),
        ("Ask as sshd does:", "{prog} turku ssh-ed25519 AAAAC3NzaC1lZDI1..."),
        ("See why a key is not admitted:", "{prog} --debug turku ssh-ed25519 AAAAC3..."),
    ),
    add_arguments,
    "It prints nothing for a key that no machine has.",
)
