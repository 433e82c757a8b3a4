"""``turku-storage authorized-keys``: the AuthorizedKeysCommand of sshd, which admits new machines at once.

Anyone who reaches sshd can make it run this command with any key. So the coordinator is not asked more often than
``update_config.refresh`` allows.
"""

import argparse
import logging
import os
import sys

from turku.core import log
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.errors import InvalidValue
from turku.policy import ssh_key
from turku.storage.commands.setup import PRIVATE_UMASK, config_dir, logged
from turku.storage.config import loading
from turku.storage.config.model import StorageConfig
from turku.storage.registration import admitted_keys

_LOG = logging.getLogger(__name__)


def _run(options: argparse.Namespace) -> int:
    os.umask(PRIVATE_UMASK)
    loaded = loading.load(config_dir(options))
    # sshd discards standard error.
    log.set_up("turku-storage", destination=loaded.state.log_file, debug=options.debug, terminal=sys.stderr.isatty())
    logged(lambda: run(options, loaded, SYSTEM_CLOCK, print))
    return 0


def run(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> None:
    """Print the line that admits the key, or nothing. Raises ConfigurationError, and as ``update_config.refresh``."""
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


COMMANDS = (
    Command(
        "authorized-keys",
        "Print the line that admits a machine's key, for AuthorizedKeysCommand of sshd.",
        _run,
        (
            (
                "In sshd_config, within the Match block of the user:",
                "AuthorizedKeysCommand /usr/local/bin/{prog} %u %t %k",
            ),
            ("See whether a key is admitted:", "{prog} turku ssh-ed25519 AAAAC3..."),
            ("See why it is not:", "{prog} --debug turku ssh-ed25519 AAAAC3..."),
        ),
        (
            Argument("user", metavar="USER", help="User that logs in (%%u in sshd_config)."),
            Argument("type", metavar="TYPE", help="Type of the offered key (%%t)."),
            Argument("key", metavar="KEY", help="Offered key in Base64 (%%k)."),
        ),
        "It prints nothing for a key that no machine has.",
    ),
)
