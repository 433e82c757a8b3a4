"""`turku-api hash-key`: the keys that protect stored credentials."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from turku.api.audit import log
from turku.api.commands.command import TurkuCommand
from turku.api.fleet.identity import hash_keys, keyring
from turku.core.clock import SYSTEM_CLOCK


class Command(TurkuCommand):
    """Lists, adds and takes out hash keys."""

    help = "List the hash keys, add one (rotate), or take out one that no credential needs (retire ID)."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        actions.add_parser("list", help="ids of the keys and how many credentials each protects")
        actions.add_parser("rotate", help="make a new key; credentials move to it as they are used")
        actions.add_parser("retire", help="take out an older key").add_argument("key_id")

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
