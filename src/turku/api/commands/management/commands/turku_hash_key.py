"""`turku-api hash-key`: the keys that protect stored credentials."""

from __future__ import annotations

from typing import Any

from turku.api.audit import log
from turku.api.commands.command import TurkuCommand, add_action
from turku.api.fleet.identity import hash_keys, keyring
from turku.core.cli.arguments import Parser
from turku.core.clock import SYSTEM_CLOCK


class Command(TurkuCommand):
    """List, add and remove hash keys."""

    help = "List the hash keys, add one, or remove one that no credential needs."
    examples = (
        ("Show the keys:", "{prog} list"),
        ("Add a key:", "{prog} rotate"),
        ("Remove a key that no credential needs:", "{prog} retire 3f2a"),
    )

    def declare_arguments(self, parser: Parser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        add_action(
            actions,
            "list",
            "Show the keys, and how many credentials each protects.",
            ("Show the keys:", "{prog}"),
            ("Show those that are not held here:", "{prog} | grep 'NOT HELD'"),
            ("Show the newest:", "{prog} | grep newest"),
        )
        add_action(
            actions,
            "rotate",
            "Add a key. Credentials move to it as they are used.",
            ("Add a key:", "{prog}"),
            ("Add a key, and show all:", "{prog} && turku-api hash-key list"),
            ("Add a key to another coordinator:", "TURKU_STATE_DIR=/srv/turku {prog}"),
        )
        retire = add_action(
            actions,
            "retire",
            "Remove an older key that no credential needs.",
            ("Remove a key:", "{prog} 3f2a"),
            ("See first which is needed:", "turku-api hash-key list && {prog} 3f2a"),
            ("Remove a key of another coordinator:", "TURKU_STATE_DIR=/srv/turku {prog} 3f2a"),
        )
        retire.add_argument("key_id", metavar="ID", help="Id of the key, as 'list' shows it.")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        now = SYSTEM_CLOCK.now()
        if options["action"] == "rotate":
            key_id = hash_keys.rotate(now=now)
            log.record(log.COMMAND_LINE, [log.NewEntry("hash_key.added", None, new={"id": key_id})], now=now)
            self.stdout.write(
                f"New hash key {key_id}. Copy the key file to every other coordinator of this database and start "
                "all of them again; each credential moves to the new key when it is next used."
            )
        elif options["action"] == "retire":
            hash_keys.retire(options["key_id"])
            log.record(
                log.COMMAND_LINE, [log.NewEntry("hash_key.retired", None, old={"id": options["key_id"]})], now=now
            )
            self.stdout.write(f"Hash key {options['key_id']} is gone.")
        else:
            newest = keyring.current().newest.id
            ours = {key.id for key in keyring.current().keys}
            for key_id, count in hash_keys.usage().items():
                remark = "newest" if key_id == newest else "older" if key_id in ours else "NOT HELD HERE"
                self.stdout.write(f"{key_id}  {count} credentials  {remark}")
