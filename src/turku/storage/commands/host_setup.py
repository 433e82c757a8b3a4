"""``turku-storage setup`` and ``teardown``: make this host a storage, and undo that."""

import argparse
import logging
import os
from functools import partial
from pathlib import Path

from turku.core import log
from turku.core.cli import options as common
from turku.core.cli import person
from turku.core.cli.arguments import count
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command
from turku.core.configuration import directory
from turku.core.configuration.declaration import with_values
from turku.core.setup import accounts, programs, teardown
from turku.core.setup.host import Host
from turku.core.setup.plan import EXIT_NOT_DONE, require_root
from turku.core.setup.record import Kind, Record
from turku.errors import CommandFailed, TurkuError, UsageError
from turku.protocol import join_token
from turku.protocol.client import ApiClient
from turku.protocol.join_token import JoinKind, JoinToken
from turku.protocol.messages import HealthAnswer
from turku.storage.commands import check
from turku.storage.commands.setup import EXIT_PROBLEMS, PRIVATE_UMASK, config_dir
from turku.storage.config import loading
from turku.storage.config.defaults import DEFAULT_VAR_DIR
from turku.storage.config.model import ReceivingConfig
from turku.storage.registration import update_config
from turku.storage.rsync import version
from turku.storage.setup import config_file, snippets, volume_choice
from turku.storage.setup.config_file import Choices, Configuration
from turku.storage.setup.plan import NEEDED, PACKAGE, PROGRAM, plan
from turku.storage.setup.volume_choice import VolumeChoice

_SSHD_PORT = 22


def set_up(options: argparse.Namespace) -> int:
    """Make this host a storage. Return 0 if it is one."""
    require_root()
    os.umask(PRIVATE_UMASK)
    # The steps say what is done.
    log.set_up(PROGRAM, debug=options.debug, level=logging.WARNING)
    say: Say = partial(print, flush=True)
    host = Host()
    token = _token(options.join)
    programs.require(host, NEEDED)
    version.require_supported(ReceivingConfig())
    made = Record(host, PROGRAM)
    choices = Choices(
        token=token,
        knows_token=token is not None and made.knows_token(token.url, token.digest()),
        volumes=volume_choice.parse(options.volume or ()),
        name=options.name,
        ssh_host=options.ssh_host,
        ssh_port=options.ssh_port,
        slots=options.slots,
    )
    user, place = accounts.user_of(PACKAGE), config_dir(options)
    chosen = config_file.configuration(choices, host, place, user=user, sshd_port=_sshd_port(host, user))
    for choice in chosen.volumes:
        volume_choice.require_usable(choice)
        for line in volume_choice.advice(choice):
            say(line)
    _require_consent(options, chosen)
    if token is not None and not made.find(Kind.REGISTRATION, token.url):
        # Before anything is changed: is it there, and is it the one that the token is from?
        ApiClient(token.url, accepted_keys=token.key_fingerprints).call("health", {}, HealthAnswer)
    steps = plan(host, chosen, place, lambda: _register(place, token))
    if not steps.carry_out(say, is_dry_run=options.dry_run, is_confirmed=options.yes):
        return 0 if options.dry_run else EXIT_NOT_DONE
    return _conclude(place, say)


def tear_down(options: argparse.Namespace) -> int:
    """Undo what setup made on this host."""
    require_root()
    log.set_up(PROGRAM, debug=options.debug, level=logging.WARNING)
    is_done = teardown.tear_down(
        PROGRAM, Host(), print, stays=_what_stays(options), is_dry_run=options.dry_run, is_confirmed=options.yes
    )
    return 0 if is_done or options.dry_run else EXIT_NOT_DONE


def _token(text: str | None) -> JoinToken | None:
    return None if text is None else join_token.decode(person.secret_argument(text), kind=JoinKind.STORAGE)


def _sshd_port(host: Host, user: str) -> int:
    try:
        return int(snippets.sshd_settings(host, user).get("port", _SSHD_PORT))
    except CommandFailed:
        # Its configuration has a mistake, which the step of the snippet reports, or it has no host keys yet.
        return _SSHD_PORT


def _require_consent(options: argparse.Namespace, chosen: Configuration) -> None:
    """Raise UsageError if a new volume is on the root file system and nobody said that this is meant."""
    known = Path(DEFAULT_VAR_DIR) / "volumes"
    new = [each for each in chosen.volumes if not (known / f"{each.name}.json").exists()]
    on_root = [each for each in new if volume_choice.is_on_root_file_system(each)]
    if not on_root or options.allow_root_file_system or options.dry_run:
        return
    hint = "mount a file system of its own there, or say --allow-root-file-system"
    names = ", ".join(str(each.path) for each in on_root)
    if options.yes:
        raise UsageError(f"{names} is on the file system of the operating system", hint=hint)
    if not person.says_yes(f"Keep backups in {names}, on the file system of the operating system?", hint=hint):
        raise UsageError(f"{names} is not used", hint=hint)


def _register(place: Path, token: JoinToken | None) -> None:
    """Register with the token's secret, which is in no file and no message."""
    loaded = loading.load(place)
    if token is not None:
        loaded = with_values(loaded, api_auth=token.secret, api_auth_name=None, api_auth_secret=None)
    update_config.update_config(loaded)
    loading.remember_name(loaded)


def _conclude(place: Path, say: Say) -> int:
    loaded = loading.load(place)
    say("")
    problems = check.report(loaded, say)
    say("")
    name, address = loaded.identity.name, loaded.ssh
    if problems:
        say(f"Storage {name} is set up, with the problems above. Fix them, then run: turku-storage check")
        return EXIT_PROBLEMS
    say(f"Storage {name} is ready. Machines reach it at {address.ssh_ping_host}, port {address.ssh_ping_port}.")
    say("Next, on each machine that is to be backed up: turku-agent setup JOIN --source etc=/etc")
    say("(on the coordinator, 'turku-api join-token create machine' prints JOIN)")
    return 0


def _what_stays(options: argparse.Namespace) -> list[str]:
    """Return sentences on what teardown leaves, as far as the configuration can be read."""
    var_dir = DEFAULT_VAR_DIR
    try:
        merged = directory.read_with_state(config_dir(options), default_var_dir=DEFAULT_VAR_DIR).content
        var_dir = str(merged.get("var_dir", DEFAULT_VAR_DIR))
        volumes = [VolumeChoice(name, Path(str(each["path"]))) for name, each in merged.get("volumes", {}).items()]
    except (TurkuError, OSError, TypeError, KeyError, AttributeError):
        merged, volumes = {}, []
    stays = [f"volume {each.name}: {each.path}, with all snapshots" for each in volumes]
    stays.append(f"{var_dir}: this storage's identity and secret, and its links to machines")
    if "name" in merged:
        name = merged["name"]
        stays.append(f"the coordinator goes on knowing {name}; there: turku-api storage remove {name}")
    return stays


COMMANDS = (
    Command(
        "setup",
        "Make this host a storage: user, sudo and sshd, volumes, configuration, registration and timers.",
        set_up,
        (
            ("Set this storage up:", "{prog} JOIN --volume /srv/turku"),
            ("Show what would be done:", "{prog} JOIN --volume /srv/turku --dry-run"),
            ("Add a volume later:", "{prog} --volume second=/srv/second"),
        ),
        (
            Argument(
                "join",
                metavar="JOIN",
                nargs="?",
                help="Join token, from 'turku-api join-token create storage' on the coordinator. '-' reads it from "
                "standard input.",
            ),
            Argument(
                "--volume",
                action="append",
                metavar="[NAME=]PATH",
                help="Directory for backups, best a file system of its own. Can be repeated.",
            ),
            Argument("--name", metavar="NAME", help="Name at the coordinator (default: host name)."),
            Argument(
                "--ssh-host", metavar="HOST", help="Address where machines reach this host (default: full host name)."
            ),
            Argument(
                "--ssh-port", type=count(65535), metavar="PORT", help="Port of sshd there (default: as sshd says)."
            ),
            Argument(
                "--slots", type=count(1000), metavar="N", help="Most machines at once (default: the coordinator's)."
            ),
            Argument(
                "--allow-root-file-system",
                action="store_true",
                help="Accept a volume that shares the file system of the operating system.",
            ),
            common.DRY_RUN,
            common.YES,
        ),
        "It shows the steps and asks once. Run it again to finish an interrupted run, to install files of a newer "
        "version, or to add a volume. What was edited by hand stays.",
        exit_codes={EXIT_NOT_DONE: "Nothing was done, or a problem is left."},
    ),
    teardown.command(
        "Undo what setup made on this host. Volumes, snapshots and this storage's identity stay.", tear_down
    ),
)
