"""The command `turku-api recover`: a coordinator comes back from a backup.

It runs before the settings are there. So this module imports nothing of Django before they are.
"""

import argparse
import os
import pwd
from datetime import timedelta
from pathlib import Path

from turku.api.configuration import service_user
from turku.api.project.recovery import manifest, settings_files
from turku.api.project.recovery.manifest import OpenedBackup
from turku.core import durable
from turku.core.cli.arguments import number
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command
from turku.core.clock import SYSTEM_CLOCK
from turku.core.units import count_of
from turku.errors import ConfigurationError, UsageError

_FOR_STORAGES = """'turku-api join-token create storage' prints JOIN. On each storage, which keeps its
name and volumes:
  turku-storage setup JOIN
  turku-storage recover-coordinator"""
_FOR_MACHINES = "For each: turku-api machine re-enrol MACHINE, and there: turku-agent setup JOIN --re-enrol"


def run(options: argparse.Namespace) -> int:
    """Verify the backup, and put everything in its place."""
    if options.from_storages or options.end:
        if options.directory is not None:
            raise UsageError("--from-storages needs no directory", hint="a backup has more than storages know: take it")
        return _from_storages(options)
    if options.directory is None:
        raise UsageError(
            "recover needs the directory of a backup", hint="the timer makes them in /var/backups/turku-api"
        )
    with manifest.opened(options.directory.absolute()) as opened:
        _say(f"{opened.path}: made {opened.manifest.made} by version {opened.manifest.program}, every file is whole.")
        if os.geteuid() == 0 and not any(name.startswith("TURKU_") for name in os.environ):
            _put_settings_back(opened)
        return _recover(opened, replaces=options.replace)


def _recover(opened: OpenedBackup, *, replaces: bool) -> int:
    import django

    django.setup()
    from django.conf import settings

    from turku.api.fleet.models import Machine, Storage
    from turku.api.project.recovery import recover

    environment = settings.TURKU_ENVIRONMENT
    if environment.errors:
        raise ConfigurationError("\n".join(f"{each.message} {each.hint}" for each in environment.errors))
    durable.make_private_directory(environment.state_dir)
    for path in recover.recover(opened, environment, replaces=replaces, now=SYSTEM_CLOCK.now()):
        _say(f"Kept: {path}")
    for name, path in settings_files.missing_tls_files(opened, os.environ).items():
        _say(f"Missing: {path}. Copy {opened.path / name} there, or change the settings.")
    _say(
        f"Recovered: {Machine.objects.count()} machines and {Storage.objects.count()} storages, as of "
        f"{opened.manifest.made}.\n\n"
        "Next:\n"
        "  1. If this host has another name: change TURKU_ALLOWED_HOSTS and TURKU_URL in\n"
        f"     {service_user.FILE}, and api_url on machines and storages.\n"
        "  2. turku-api setup, which does what is missing on this host, and starts the service\n"
        "  3. turku-api health --verbose\n"
        "     Machines that changed their secret after the backup are refused:\n"
        "     turku-api machine re-enrol MACHINE"
    )
    return 0


def _from_storages(options: argparse.Namespace) -> int:
    """Take the reports of storages for a while, and show what came so far."""
    import django

    service_user.become(os.environ)
    django.setup()
    from turku.api.backups import recovered_machines
    from turku.api.commands.setup import configured

    def show(_options: argparse.Namespace, say: Say) -> int:
        now = SYSTEM_CLOCK.now()
        if options.end:
            recovered_machines.end(now=now)
            say("Reports of storages are not taken any more.")
        else:
            until = recovered_machines.begin(until=now + timedelta(hours=options.hours), now=now).date_ends
            say(f"Reports of storages are taken until {until:%Y-%m-%d %H:%M} UTC.\n\n{_FOR_STORAGES}\n")
        machines = recovered_machines.recovered()
        for each in machines:
            state = "waits" if recovered_machines.is_waiting(each) else "is back"
            if not each.active:
                state = "is switched off: several storages have it. Choose its storage, and switch it on (admin site)"
            say(f"{each}  {each.uuid}  {each.storage}  {state}")
        say(f"{count_of(len(machines), 'machine')} recovered so far." + (f" {_FOR_MACHINES}" if machines else ""))
        return 0

    return configured(show)(options)


def _put_settings_back(opened: OpenedBackup) -> None:
    """Write the environment file if there is none, and go on as the service's user with its variables."""
    path = service_user.FILE
    if not path.exists():
        try:
            group = pwd.getpwnam(service_user.USER).pw_gid
        except KeyError:
            raise ConfigurationError(
                f"there is no user {service_user.USER}", hint="install the package turku-api, or run: turku-api setup"
            ) from None
        if not path.parent.exists():
            # As systemd-tmpfiles makes it, whatever the umask is.
            path.parent.mkdir()
            os.chown(path.parent, 0, group)
            path.parent.chmod(0o750)
        durable.write_bytes(path, opened.content(settings_files.ENVIRONMENT), mode=0o640, owner=(0, group))
        _say(f"Written: {path}")
    else:
        _say(f"Settings: {path}, which was here already. Those of the backup are in {settings_files.ENVIRONMENT}.")
    service_user.become(os.environ)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


COMMANDS = (
    Command(
        "recover",
        "Bring a lost coordinator back from a backup.",
        run,
        (
            ("Recover from the newest backup there:", "{prog} /var/backups/turku-api"),
            ("Recover without a backup, from what storages know:", "{prog} --from-storages"),
            ("Go back to it, in place of the present database:", "{prog} /srv/copy --replace"),
        ),
        (
            Argument(
                "directory",
                nargs="?",
                type=Path,
                metavar="DIRECTORY",
                help="A backup, or a directory of which the newest one is taken.",
            ),
            Argument(
                "--from-storages",
                action="store_true",
                help="Without a backup: take what storages know of their machines, and show what came so far.",
            ),
            Argument(
                "--hours",
                type=number("hours", 24 * 14, above_least=True),
                default=72.0,
                metavar="N",
                help="Take reports of storages for this time (default: %(default)g).",
            ),
            Argument("--end", action="store_true", help="Take no reports of storages any more."),
            Argument(
                "--replace",
                action="store_true",
                help="Do it even if the database has machines or storages. What is there is kept aside.",
            ),
        ),
        "Each file is verified by the manifest first. The database is brought to this version.",
    ),
)
