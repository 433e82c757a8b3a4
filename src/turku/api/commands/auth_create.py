"""`turku-api auth-create`: credentials with which machines or storages register."""

import argparse
import json

from django.db import transaction

from turku.api.audit import log
from turku.api.commands.setup import configured
from turku.api.fleet.identity import auths, hash_keys
from turku.api.fleet.models import NAME_LENGTH, AuthKind
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import UsageError

_PROGRAMS = {
    AuthKind.MACHINE: ("/etc/turku-agent/config.d/api.json", "turku-update-config"),
    AuthKind.STORAGE: ("/etc/turku-storage/config.d/api.json", "turku-storage-update-config"),
}


def run(options: argparse.Namespace, say: Say) -> int:
    """Create an Auth and print its secret, once."""
    now = SYSTEM_CLOCK.now()
    kind = AuthKind(options.kind)
    # To the microsecond: a script may make several at once.
    name = options.name or f"{kind.value} {now:%Y-%m-%d %H:%M:%S.%f}"
    if len(name) > NAME_LENGTH or not name.isprintable():
        raise UsageError(f"--name must be printable and at most {NAME_LENGTH} characters long")
    hash_keys.register_newest_key(now=now)
    with transaction.atomic():
        auth, secret = auths.create(kind, name, now=now)
        log.record(
            log.COMMAND_LINE, [log.NewEntry("auth.added", auth, new={"name": name, "kind": kind.label})], now=now
        )
    if options.raw:
        say(secret.reveal())
        return 0
    path, registering = _PROGRAMS[kind]
    snippet = {"api_auth_name": name, "api_auth_secret": secret.reveal()}
    say(
        f"Name:   {name}\nSecret: {secret.reveal()}\n\n"
        "The secret is shown this once and kept only as a hash.\n"
        f'Put this into {path} (mode 0600), add "api_url", and run {registering}:\n\n'
        f"{json.dumps(snippet, indent=4)}"
    )
    return 0


COMMANDS = (
    Command(
        "auth-create",
        "Create an Auth with which machines (machine_reg) or storages (storage_reg) register.",
        configured(run),
        (
            ("Create an Auth for machines:", "{prog} machine_reg"),
            ("Create one with a name for storages:", "{prog} storage_reg --name 'site two'"),
            ("Print only the secret, for a script:", "{prog} machine_reg --raw"),
        ),
        (
            Argument("kind", choices=AuthKind.values, metavar="KIND", help="Kind: machine_reg or storage_reg."),
            Argument("--name", metavar="NAME", help="Name of the Auth (default: its kind and the time)."),
            Argument("--raw", action="store_true", help="Print the secret and nothing else."),
        ),
    ),
)
