"""``turku-agent setup`` and ``teardown``: make this host a machine that is backed up, and undo that."""

import argparse
import logging
import os
from pathlib import Path

from turku.agent import registration
from turku.agent.commands.registration import typed_code
from turku.agent.config import loading
from turku.agent.config.model import DEFAULT_VAR_DIR
from turku.agent.identity import rotation
from turku.agent.setup import config_files, state_owner
from turku.agent.setup.config_files import SETUP_FREQUENCY, SETUP_RETENTION, MachineChoices
from turku.agent.setup.first_backup import FirstBackup
from turku.agent.setup.plan import NEEDED, PACKAGE, PROGRAM, plan
from turku.core import log
from turku.core.cli import options as common
from turku.core.cli import person
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command
from turku.core.configuration.declaration import with_values
from turku.core.setup import accounts, programs, teardown
from turku.core.setup.host import Host
from turku.core.setup.plan import EXIT_NOT_DONE, require_root
from turku.core.setup.record import Record
from turku.errors import InvalidValue, TurkuError
from turku.protocol import join_token
from turku.protocol.join_token import JoinKind, JoinToken

_PRIVATE_UMASK = 0o077


def set_up(options: argparse.Namespace) -> int:
    """Make this host a machine that is backed up. Return 0 if it is one."""
    require_root()
    os.umask(_PRIVATE_UMASK)
    # The steps say what is done.
    log.set_up(PROGRAM, debug=options.debug, level=logging.WARNING)
    say: Say = print
    host, place = Host(), options.config_dir.absolute()
    token = _token(options.join)
    programs.require(host, NEEDED)
    known = token is not None and Record(host, PROGRAM).knows_token(token.url, token.digest())
    chosen = config_files.configuration(_choices(options, token, knows_token=known), host, place)
    code = typed_code() if options.re_enrol and not options.dry_run else None
    refused: list[str] = []
    made = plan(
        host,
        chosen,
        place,
        lambda: refused.extend(_register(place, token, code)),
        comes_back=options.re_enrol,
        has_identity=_has_identity(place),
    )
    if not made.carry_out(say, is_dry_run=options.dry_run, is_confirmed=options.yes):
        return 0 if options.dry_run else EXIT_NOT_DONE
    for line in refused:
        say(line)
    say("")
    loaded = loading.load(place)
    if options.re_enrol:
        say(f"This machine is {loaded.identity.machine_uuid}, with its history. See it with: turku-agent snapshots")
        if not chosen.declared:
            say("It has no source yet. When a restore has brought sources.d back, run: turku-agent setup")
            return 0
    if options.no_wait:
        say("The timer makes the first backup. See it with: turku-agent status")
    is_backed_up = options.no_wait or FirstBackup(loaded, host, say).make()
    return 0 if is_backed_up and not refused else EXIT_NOT_DONE


def tear_down(options: argparse.Namespace) -> int:
    """Undo what setup made on this host."""
    require_root()
    log.set_up(PROGRAM, debug=options.debug, level=logging.WARNING)
    host = Host()
    is_done = teardown.tear_down(
        PROGRAM, host, print, stays=_what_stays(options), is_dry_run=options.dry_run, is_confirmed=options.yes
    )
    if is_done and host.account(accounts.user_of(PACKAGE)) is None:
        state_owner.give_to_root(host, Path(DEFAULT_VAR_DIR))
    return 0 if is_done or options.dry_run else EXIT_NOT_DONE


def _has_identity(place: Path) -> bool:
    """Return True if this machine has an identity, so that it need not register again."""
    try:
        return loading.load(place).identity.machine_uuid is not None
    except TurkuError:
        # There is no configuration yet, and so no registration.
        return False


def _token(text: str | None) -> JoinToken | None:
    return None if text is None else join_token.decode(person.secret_argument(text), kind=JoinKind.MACHINE)


def _choices(options: argparse.Namespace, token: JoinToken | None, *, knows_token: bool) -> MachineChoices:
    return MachineChoices(
        token,
        config_files.parse_sources(options.source or ()),
        frequency=options.frequency,
        retention=options.retention,
        names={"unit_name": options.unit, "service_name": options.service, "environment_name": options.environment},
        accept_profiles=options.accept_profiles or (),
        knows_token=knows_token,
        comes_back=options.re_enrol,
    )


def _register(place: Path, token: JoinToken | None, code: str | None) -> list[str]:
    """Register with the token's secret, which is in no file and no message. Return lines on refused sources.

    With the code of an operator, the machine becomes the one that the code is for.
    """
    loaded = loading.load(place)
    if code is not None:
        loaded = rotation.re_enrol(loaded, code)
        if not loaded.sources:
            # They come back with the restore, and must not count as withdrawn.
            return []
    if token is not None:
        loaded = with_values(loaded, api_auth=token.secret, api_auth_name=None, api_auth_secret=None)
    try:
        registration.update_config(loaded)
    except InvalidValue as error:
        # The machine is registered, and its other sources are in force.
        return [f"PROBLEM: {error.message}", *(f"  | {line}" for line in error.details.splitlines())]
    return []


def _what_stays(options: argparse.Namespace) -> list[str]:
    """Return sentences on what teardown leaves, as far as the configuration can be read."""
    uuid, var_dir = "", DEFAULT_VAR_DIR
    try:
        loaded = loading.load(options.config_dir.absolute())
        uuid, var_dir = loaded.identity.machine_uuid or "", str(loaded.state.var_dir)
    except TurkuError:
        # It was torn down before, or cannot be read.
        pass
    stays = [
        f"{var_dir}: this machine's identity and key",
        "the history of this machine on its storage, for as long as an operator keeps it",
    ]
    if uuid:
        stays.append(f"the coordinator goes on knowing this machine; there: turku-api machine remove {uuid}")
    return stays


COMMANDS = (
    Command(
        "setup",
        "Make this host a machine that is backed up: user, identity, sources, registration, timers, first backup.",
        set_up,
        (
            ("Set this machine up:", "{prog} JOIN --source etc=/etc --source home=/home"),
            ("Show what would be done:", "{prog} JOIN --source etc=/etc --dry-run"),
            ("Add a source later, without a question:", "{prog} --source srv=/srv --yes"),
        ),
        (
            Argument(
                "join",
                metavar="JOIN",
                nargs="?",
                help="Join token, from 'turku-api join-token create machine' on the coordinator. '-' reads it from "
                "standard input.",
            ),
            Argument(
                "--source",
                action="append",
                metavar="[NAME=]PATH",
                help="Directory to back up, such as etc=/etc. Can be repeated.",
            ),
            Argument(
                "--frequency", metavar="WHEN", help=f"When these sources are backed up (default: '{SETUP_FREQUENCY}')."
            ),
            Argument(
                "--retention",
                metavar="RULES",
                help=f"Rules by which their snapshots are kept (default: '{SETUP_RETENTION}').",
            ),
            Argument("--unit", metavar="NAME", help="Name of this machine (default: host name)."),
            Argument("--service", metavar="NAME", help="Service that it belongs to (default: none)."),
            Argument("--environment", metavar="NAME", help="Environment of the service (default: none)."),
            Argument(
                "--accept-profiles",
                action="append",
                type=Path,
                metavar="PATH",
                help="Also back up directories below PATH that the coordinator proposes. Can be repeated.",
            ),
            Argument(
                "--re-enrol",
                action="store_true",
                help="Become a machine that is lost, with its history. Asks for the code of 'turku-api machine "
                "re-enrol' on the coordinator.",
            ),
            Argument("--no-wait", action="store_true", help="Let the timer make the first backup."),
            common.DRY_RUN,
            common.YES,
        ),
        "It shows the steps, asks once, waits until a storage lets this machine in, and makes the first backup. Run it "
        "again to finish an interrupted run, to install files of a newer version, or to add a source. What was edited "
        "by hand stays.",
        exit_codes={0: "This machine is set up.", EXIT_NOT_DONE: "Nothing was done, or a source is not backed up."},
    ),
    teardown.command("Undo what setup made on this host. Its history, and its identity, stay.", tear_down),
)
