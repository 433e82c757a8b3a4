"""``turku-storage update-config`` and ``rotate-secret``: register, report space, admit machines, change the secret."""

import argparse
import os
import random
import sys

from turku.core import log
from turku.core.cli import options as common
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.errors import UsageError
from turku.storage.commands.setup import PRIVATE_UMASK, config_dir, configured, logged
from turku.storage.config import loading
from turku.storage.config.model import StorageConfig
from turku.storage.registration import secret_rotation
from turku.storage.registration import update_config as registration

_PROGRAM = "turku-storage-update-config"


def update_config(options: argparse.Namespace) -> int:
    """Register this storage or report its space, and write authorized_keys."""
    name = options.api_auth_name or os.environ.get("TURKU_API_AUTH_NAME")
    secret = options.api_auth_secret or os.environ.get("TURKU_API_AUTH_SECRET")
    if (name is None) != (secret is None):
        raise UsageError("--api-auth-name and --api-auth-secret go together")
    os.umask(PRIVATE_UMASK)
    log.set_up(_PROGRAM, debug=options.debug)
    loaded = loading.load(config_dir(options), api_auth_name=name, api_auth_secret=secret)
    # A timer's run speaks through its log. A person's run, and one with --debug, speaks in the terminal too.
    log.set_up(
        _PROGRAM, destination=loaded.state.log_file, debug=options.debug, terminal=options.debug or sys.stderr.isatty()
    )
    if options.wait:
        SYSTEM_CLOCK.sleep(random.SystemRandom().uniform(0, options.wait))
    logged(lambda: registration.update_config(loaded, confirms_removals=options.confirm_removals))
    return 0


def rotate_secret(_options: argparse.Namespace, configuration: StorageConfig, _clock: Clock, say: Say) -> int:
    """Replace the secret, or finish what an interrupted run began."""
    was_begun = secret_rotation.rotate(configuration)
    finished = ", as an earlier run had begun" if was_begun else ""
    say(f"storage {configuration.identity.name} has a new secret{finished}")
    return 0


COMMANDS = (
    Command(
        "update-config",
        "Register this storage or report its space, and admit the machines that the coordinator assigns to it.",
        update_config,
        (
            ("Report now, and admit new machines:", "{prog}"),
            ("Register, with TURKU_API_AUTH_SECRET in the environment:", "{prog} --api-auth-name backup"),
            ("Remove the keys of most machines at once:", "{prog} --confirm-removals"),
        ),
        (
            common.WAIT,
            *common.REGISTRATION,
            Argument(
                "--confirm-removals",
                action="store_true",
                help="Remove the keys of all machines that the coordinator does not name, even of most machines.",
            ),
        ),
        "A timer runs it every 5 minutes. Registration is needed once. Its options can also come from the environment, "
        "as TURKU_API_AUTH_NAME and TURKU_API_AUTH_SECRET.",
    ),
    Command(
        "rotate-secret",
        "Give this storage a new secret, or finish what an interrupted run began.",
        configured(rotate_secret),
        (
            ("Replace the secret:", "{prog}"),
            ("Replace it, and see that the coordinator takes it:", "{prog} && turku-storage update-config"),
            ("Replace that of another storage:", "ssh root@backup2 {prog}"),
        ),
    ),
)
