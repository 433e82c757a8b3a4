"""``turku-storage update-config`` and ``rotate-secret``: register, report space, admit machines, change the secret."""

import argparse
import os
import random
import sys
from datetime import datetime, tzinfo

from turku.core import log
from turku.core.cli import listing
from turku.core.cli import options as common
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.units import count_of
from turku.errors import UsageError
from turku.protocol.messages import StorageCredentials
from turku.protocol.recovery_messages import (
    CALL,
    MACHINES_LIMIT,
    KnownMachine,
    MachineOutcome,
    StorageKnownMachinesAnswer,
    StorageKnownMachinesRequest,
)
from turku.storage.commands.setup import EXIT_PROBLEMS, PRIVATE_UMASK, config_dir, configured, logged
from turku.storage.config import loading
from turku.storage.config.model import StorageConfig
from turku.storage.registration import known_machines, secret_rotation
from turku.storage.registration import update_config as registration
from turku.storage.registration.coordinator import Coordinator

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


def recover_coordinator(options: argparse.Namespace, configuration: StorageConfig, clock: Clock, say: Say) -> int:
    """Tell the coordinator every machine with history here, and show what it made of each."""
    found = known_machines.gather(configuration, now=clock.now())
    outcomes: dict[str, MachineOutcome] = {}
    if not options.dry_run:
        api = Coordinator(configuration).beyond_contract()
        for part in known_machines.parts(found, MACHINES_LIMIT):

            def message(credentials: StorageCredentials, part: dict[str, KnownMachine] = part) -> object:
                return StorageKnownMachinesRequest(credentials, part)

            outcomes |= api.call(CALL, message, StorageKnownMachinesAnswer).machines
    zone = configuration.state.timezone
    rows = ((uuid, *_described(machine, outcomes.get(uuid), zone)) for uuid, machine in found.items())
    headings = ("machine", "name", "sources", "newest snapshot", "coordinator")
    listing.show(
        headings, rows, say, drop=("coordinator",) if options.dry_run else (), empty="there is no history here"
    )
    claimed = sum(each.outcome in ("claimed", "refused") for each in outcomes.values())
    if not options.dry_run:
        say(
            f"{count_of(len(outcomes) - claimed, 'machine')} told. Each comes back by its operator: "
            "turku-api machine re-enrol MACHINE, and there: turku-agent setup JOIN --re-enrol"
        )
    return EXIT_PROBLEMS if claimed else 0


def _described(machine: KnownMachine, outcome: MachineOutcome | None, zone: tzinfo) -> tuple[str, str, str, str]:
    parts = (machine.environment_name, machine.service_name, machine.unit_name)
    told = "" if outcome is None else f"{outcome.outcome}: {outcome.detail}" if outcome.detail else outcome.outcome
    # A source whose options are not known comes back when its machine declares it.
    sources = (name if each.options else f"({name})" for name, each in sorted(machine.sources.items()))
    newest = max((each.newest_snapshot or 0 for each in machine.sources.values()), default=0)
    shown = f"{datetime.fromtimestamp(newest, zone):%Y-%m-%d %H:%M}" if newest else ""
    return "-".join(part for part in parts if part), " ".join(sources), shown, told


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
    Command(
        "recover-coordinator",
        "Tell a coordinator that lost its database which machines have history here.",
        configured(recover_coordinator, needs_all_volumes=True),
        (
            ("Show what would be told:", "{prog} --dry-run"),
            ("Tell the new coordinator:", "{prog}"),
            ("Register with it first:", "turku-storage update-config && {prog}"),
        ),
        (common.DRY_RUN,),
        "The coordinator takes it only while 'turku-api recover --from-storages' allows it, and changes no machine "
        "that it has already.",
        {EXIT_PROBLEMS: "A machine was refused, or another storage has it as well."},
    ),
)
