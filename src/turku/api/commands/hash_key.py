"""`turku-api hash-key`: the keys that protect stored credentials."""

import argparse

from turku.api.audit import log
from turku.api.commands.setup import configured
from turku.api.fleet.identity import hash_keys, keyring
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command, CommandGroup
from turku.core.clock import SYSTEM_CLOCK
from turku.core.units import count_of


def show(_options: argparse.Namespace, say: Say) -> int:
    """Print the keys, newest first, and how many credentials each protects."""
    usage = hash_keys.usage()
    ours = [key.id for key in keyring.current().keys]
    for key_id in (*ours, *(usage.keys() - ours)):
        remark = "newest" if key_id == ours[0] else "older" if key_id in ours else "NOT HELD HERE"
        say(f"{key_id}  {count_of(usage.get(key_id, 0), 'credential')}  {remark}")
    return 0


def rotate(_options: argparse.Namespace, say: Say) -> int:
    """Add a key."""
    now = SYSTEM_CLOCK.now()
    key_id = hash_keys.rotate(now=now)
    log.record(log.COMMAND_LINE, [log.NewEntry("hash_key.added", None, new={"id": key_id})], now=now)
    say(f"New hash key: {key_id}")
    say("Copy the key file to every other coordinator of this database, and start all of them again.")
    say("Each credential moves to the new key when it is next used.")
    return 0


def retire(options: argparse.Namespace, say: Say) -> int:
    """Remove a key that no credential needs."""
    hash_keys.retire(options.key_id)
    entry = log.NewEntry("hash_key.retired", None, old={"id": options.key_id})
    log.record(log.COMMAND_LINE, [entry], now=SYSTEM_CLOCK.now())
    say(f"Hash key {options.key_id} is gone.")
    return 0


COMMANDS = (
    CommandGroup(
        "hash-key",
        "List the hash keys, add one, or remove one that no credential needs.",
        (
            Command(
                "list",
                "Show the keys, and how many credentials each protects.",
                configured(show),
                (
                    ("Show the keys:", "{prog}"),
                    ("Show those that are not held here:", "{prog} | grep 'NOT HELD'"),
                    ("Show the one that new credentials get:", "{prog} | grep newest"),
                ),
            ),
            Command(
                "rotate",
                "Add a key. Credentials move to it as they are used.",
                configured(rotate),
                (
                    ("Add a key:", "{prog}"),
                    ("Add a key, and show all:", "{prog} && turku-api hash-key list"),
                    ("Copy the file with the keys first, in its directory:", "cp -p hash_key hash_key.old && {prog}"),
                ),
            ),
            Command(
                "retire",
                "Remove an older key that no credential needs.",
                configured(retire),
                (
                    ("Remove a key:", "{prog} b58c63d33a5d28b6"),
                    ("Remove a key, and show the others:", "{prog} b58c63d33a5d28b6 && turku-api hash-key list"),
                    ("Log details if it is refused:", "TURKU_DEBUG=1 {prog} b58c63d33a5d28b6"),
                ),
                (Argument("key_id", metavar="ID", help="Id of the key, as 'list' shows it."),),
            ),
        ),
        (
            ("Show the keys:", "{prog} list"),
            ("Add a key:", "{prog} rotate"),
            ("Remove a key that no credential needs:", "{prog} retire b58c63d33a5d28b6"),
        ),
    ),
)
