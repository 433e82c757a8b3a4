"""The command `turku-api recover`: a coordinator comes back from a backup.

It runs before the settings are there. So this module imports nothing of Django before they are.
"""

import argparse
import os
import pwd
from pathlib import Path

from turku.api.configuration import service_user
from turku.api.project.recovery import manifest, settings_files
from turku.api.project.recovery.manifest import OpenedBackup
from turku.core import durable
from turku.core.cli.program import Argument, Command
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import ConfigurationError, UsageError


def run(options: argparse.Namespace) -> int:
    """Verify the backup, and put everything in its place."""
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
    _say(
        f"Recovered: {Machine.objects.count()} machines and {Storage.objects.count()} storages, as of "
        f"{opened.manifest.made}.\n\n"
        "Next:\n"
        "  1. systemctl enable --now turku-api\n"
        "  2. If this host has another name: change TURKU_ALLOWED_HOSTS here, and api_url on machines and storages.\n"
        "  3. turku-api health --verbose\n"
        "     Machines that changed their secret after the backup are refused: turku-api machine re-enrol MACHINE"
    )
    return 0


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
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
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
            ("Recover from a certain one:", "{prog} /mnt/disk/turku-api/2026-11-30T021500Z"),
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
                "--replace",
                action="store_true",
                help="Do it even if the database has machines or storages. What is there is kept aside.",
            ),
        ),
        "Each file is verified by the manifest first. The database is brought to this version.",
    ),
)
