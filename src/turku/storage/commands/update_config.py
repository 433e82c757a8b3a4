"""``turku-storage update-config``, and ``turku-storage-update-config``: register, report space, admit machines."""

from __future__ import annotations

import argparse
import os
import sys

from turku.core.cli import options as common
from turku.core.cli.arguments import Parser
from turku.core.cli.program import Command
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import UsageError
from turku.storage.commands.setup import PRIVATE_UMASK, config_dir, logged

_PROGRAM = "turku-storage-update-config"


def add_arguments(parser: Parser) -> None:
    """Add the options that the contract names, and ``--confirm-removals``."""
    common.add_wait(parser)
    common.add_registration(parser)
    parser.add_argument(
        "--confirm-removals",
        action="store_true",
        help="Remove the keys of machines that the coordinator lacks at once, even if they are most of them.",
    )


def run(options: argparse.Namespace) -> int:
    """Register this storage or report its space, and write authorized_keys."""
    from turku.core import log
    from turku.storage.config import loading as configuration
    from turku.storage.registration import update_config

    name = options.api_auth_name or os.environ.get("TURKU_API_AUTH_NAME")
    secret = options.api_auth_secret or os.environ.get("TURKU_API_AUTH_SECRET")
    if (name is None) != (secret is None):
        raise UsageError("--api-auth-name and --api-auth-secret go together")
    os.umask(PRIVATE_UMASK)
    log.set_up(_PROGRAM, debug=options.debug)
    loaded = configuration.load(config_dir(options), api_auth_name=name, api_auth_secret=secret)
    # A timer's run speaks through its log. A person's run, and one with --debug, speaks in the terminal too.
    log.set_up(
        _PROGRAM,
        destination=loaded.state.log_file,
        debug=options.debug,
        terminal=options.debug or sys.stderr.isatty(),
    )
    if options.wait:
        import random

        SYSTEM_CLOCK.sleep(random.SystemRandom().uniform(0, options.wait))
    logged(lambda: update_config.update_config(loaded, confirms_removals=options.confirm_removals))
    return 0


COMMAND = Command(
    "update-config",
    "Register this storage or report its space, and admit the machines that the coordinator assigns to it.",
    run,
    (
        ("Report now, and admit new machines:", "{prog}"),
        ("Register, with TURKU_API_AUTH_SECRET in the environment:", "{prog} --api-auth-name backup"),
        ("Remove the keys of most machines at once:", "{prog} --confirm-removals"),
    ),
    add_arguments,
    "A timer runs it every 5 minutes. TURKU_API_AUTH_NAME and TURKU_API_AUTH_SECRET in the environment stand for the "
    "options of registration, which is needed once.",
)
