"""The plan of ``turku-storage setup``: the steps from a bare host to a storage that takes machines."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from turku.core import durable
from turku.core.setup import accounts
from turku.core.setup.directories import directory_steps
from turku.core.setup.host import Host
from turku.core.setup.plan import Plan
from turku.core.setup.programs import program_steps
from turku.core.setup.record import Kind, Made, Record, digest_of
from turku.core.setup.step import DONE, Action, Finding, State, Step, make_directory
from turku.core.setup.units import periodic_steps
from turku.storage.setup import snippets, volume_choice
from turku.storage.setup.config_file import Configuration
from turku.storage.setup.volume_choice import VolumeChoice

PROGRAM: Final = "turku-storage"
PACKAGE: Final = "turku.storage"
PROGRAMS: Final = ("turku-storage", "turku-storage-ping", "turku-storage-update-config")
NEEDED: Final = {"sshd": "openssh-server", "sudo": "sudo", "visudo": "sudo", "rsync": "rsync", "bwrap": "bubblewrap"}


@dataclass(frozen=True)
class RegistrationStep(Step):
    """The registration of this storage at the coordinator, which also marks the volumes and admits machines."""

    address: str
    digest: str
    """Digest of the configuration. The coordinator of another one, at the same address, does not know this storage."""
    register: Callable[[], None]

    @property
    def title(self) -> str:  # type: ignore[override]  # computed, not stored
        return f"register at the coordinator, {self.address}"

    def find(self, host: Host, record: Record) -> Finding:  # noqa: ARG002  (only the record knows)
        made = record.find(Kind.REGISTRATION, self.address)
        if made is None:
            return Finding(State.NEEDED)
        return DONE if made.digest == self.digest else Finding(State.NEEDED, "the configuration changed")

    def apply(self, host: Host, record: Record) -> None:  # noqa: ARG002  (the coordinator is elsewhere)
        self.register()
        record.add(Made(Kind.REGISTRATION, self.address, self.digest))


def plan(host: Host, chosen: Configuration, config_dir: Path, register: Callable[[], None]) -> Plan:
    """Return the plan. ``register`` registers the storage with the configuration that is then written."""
    user = accounts.user_of(PACKAGE)
    steps: list[Step] = [
        *program_steps(host, *PROGRAMS),
        *accounts.user_steps(PACKAGE, host, PROGRAM, purpose="machines log in as this user", logs_in=True),
        *directory_steps(PACKAGE, host, PROGRAM),
        *(_volume_step(choice) for choice in chosen.volumes),
        *snippets.steps(host, PROGRAM, user=user),
        chosen.step(config_dir),
        RegistrationStep(chosen.merged["api_url"], digest_of(durable.json_bytes(chosen.merged)), register),
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
