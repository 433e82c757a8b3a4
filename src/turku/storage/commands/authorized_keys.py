"""``turku-storage authorized-keys``: what sshd runs to ask whether a key may log in (its AuthorizedKeysCommand).

So a machine that has just registered is let in at once. Whoever reaches sshd can make it ask, with any key: what costs
something is done for nobody more often than ``registration.refresh`` allows.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from turku.errors import InvalidValue

if TYPE_CHECKING:
    from turku.core.clock import Clock
    from turku.storage.config.configuration import StorageConfig

_LOG = logging.getLogger(__name__)


def add(parser: argparse.ArgumentParser, add_directory: Callable[[argparse.ArgumentParser], None]) -> None:
    """Give the parser its arguments."""
    add_directory(parser)
    parser.add_argument("user", metavar="USER", help="who logs in (%%u in sshd_config)")
    parser.add_argument("type", metavar="TYPE", help="the offered key's type (%%t)")
    parser.add_argument("key", metavar="KEY", help="the offered key in Base64 (%%k)")


def run(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Callable[[str], None]) -> None:
    """Say the line that lets the key in, or nothing.

    Raises what ``registration.refresh`` does, and ConfigurationError.
    """
    from turku.policy import ssh_key
    from turku.storage.registration import admitted_keys

    # sshd_config may name this program for every user: machines' keys are of this one alone.
    if options.user != configuration.authorized_keys_user:
        _LOG.debug("nobody logs in as %s with a machine's key", options.user)
        return
    try:
        key = ssh_key.ssh_public_key(f"{options.type} {options.key}")
    except InvalidValue as error:
        _LOG.debug("no machine has such a key: %s", error.message)
        return
    line = admitted_keys.line_of(configuration, key)
    if line is None:
        from turku.storage.registration import update_config

        update_config.refresh(configuration, clock=clock)
        line = admitted_keys.line_of(configuration, key)
    if line is not None:
        say(line)
