"""The plan of ``turku-storage setup``: the steps from a bare host to a storage that takes machines."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from turku.core import durable
from turku.core.setup import accounts
from turku.core.setup.directories import directory_steps
from turku.core.setup.host import Host
from turku.core.setup.plan import Plan
from turku.core.setup.programs import program_steps
from turku.core.setup.record import digest_of
from turku.core.setup.registration import RegistrationStep
from turku.core.setup.step import DONE, Action, Finding, State, Step, make_directory
from turku.core.setup.units import periodic_steps
from turku.storage.setup import snippets, volume_choice
from turku.storage.setup.config_file import Configuration
from turku.storage.setup.volume_choice import VolumeChoice

PROGRAM: Final = "turku-storage"
PACKAGE: Final = "turku.storage"
PROGRAMS: Final = ("turku-storage", "turku-storage-ping", "turku-storage-update-config")
NEEDED: Final = {"sshd": "openssh-server", "sudo": "sudo", "visudo": "sudo", "rsync": "rsync", "bwrap": "bubblewrap"}


def plan(host: Host, chosen: Configuration, config_dir: Path, register: Callable[[], None]) -> Plan:
    """Return the plan. ``register`` registers the storage with the configuration that is then written."""
    user, api_url = accounts.user_of(PACKAGE), chosen.merged["api_url"]
    steps: list[Step] = [
        *program_steps(host, *PROGRAMS),
        *accounts.user_steps(PACKAGE, host, PROGRAM, purpose="machines log in as this user", logs_in=True),
        *directory_steps(PACKAGE, host, PROGRAM),
        *(_volume_step(choice) for choice in chosen.volumes),
        *snippets.steps(host, PROGRAM, user=user),
        chosen.step(config_dir),
        RegistrationStep(
            f"register at the coordinator, {api_url}",
            api_url,
            digest_of(durable.json_bytes(chosen.merged)),
            register,
            chosen.token_digest,
        ),
        *periodic_steps(PACKAGE, host, PROGRAM),
    ]
    return Plan(PROGRAM, steps, host)


def _volume_step(choice: VolumeChoice) -> Step:
    def find(host: Host) -> Finding:
        return Finding(State.NEEDED) if volume_choice.is_missing(host.path(choice.path)) else DONE

    def make(host: Host) -> None:
        make_directory(host.path(choice.path), 0o755)
        durable.fsync_directory(host.path(choice.path))

    # Teardown never removes a volume, so this step leaves no record.
    return Action(f"create the directory {choice.path} for volume {choice.name}", find, make)
