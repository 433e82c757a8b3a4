"""The plan of ``turku-storage setup``: the steps from a bare host to a storage that takes machines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from turku.core import durable
from turku.core.setup import accounts
from turku.core.setup.directories import directory_steps
from turku.core.setup.host import Host
from turku.core.setup.host_files import HostFile, all_of
from turku.core.setup.plan import Plan
from turku.core.setup.programs import program_steps
from turku.core.setup.record import Kind, Made, Record, digest_of
from turku.core.setup.step import DONE, Action, Finding, State, Step, host_file_step, make_directory
from turku.core.setup.units import UnitsStep
from turku.errors import ConfigurationError
from turku.storage.setup import snippets, volume_choice
from turku.storage.setup.config_file import Configuration
from turku.storage.setup.volume_choice import VolumeChoice

PROGRAM: Final = "turku-storage"
PACKAGE: Final = "turku.storage"
PROGRAMS: Final = ("turku-storage", "turku-storage-ping", "turku-storage-update-config")
TIMERS: Final = (
    "turku-storage-update-config.timer",
    "turku-storage-gc.timer",
    "turku-storage-verify.timer",
    "turku-storage-drill.timer",
)
_NEEDED: Final = {"sshd": "openssh-server", "sudo": "sudo", "visudo": "sudo", "rsync": "rsync", "bwrap": "bubblewrap"}
_CRON: Final = HostFile(PACKAGE, "cron", "turku-storage")


def login_user() -> str:
    """Return the name of the user that machines log in as."""
    [file] = all_of(PACKAGE, "sysusers.d")
    return accounts.declared_user(file).name


def require_programs(host: Host) -> None:
    """Raise ConfigurationError with all programs that a storage needs and that are not installed."""
    missing = {name: package for name, package in _NEEDED.items() if host.find_program(name) is None}
    if missing:
        raise ConfigurationError(
            f"not installed on this host: {', '.join(missing)}",
            hint=f"apt-get install {' '.join(dict.fromkeys(missing.values()))}",
        )


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
    user = login_user()
    steps: list[Step] = [
        *program_steps(host, *PROGRAMS),
        *accounts.user_steps(PACKAGE, host, PROGRAM, purpose="machines log in as this user", logs_in=True),
        *directory_steps(PACKAGE, host, PROGRAM),
        *(_volume_step(choice) for choice in chosen.volumes),
        *snippets.steps(host, PROGRAM, user=user),
        chosen.step(config_dir),
        RegistrationStep(chosen.merged["api_url"], digest_of(durable.json_bytes(chosen.merged)), register),
        *_periodic_steps(host),
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


def _periodic_steps(host: Host) -> Sequence[Step]:
    """Return the steps that run the storage's programs at their times."""
    if host.has_systemd:
        units = (host_file_step(file, host, PROGRAM) for file in all_of(PACKAGE, "systemd"))
        return [*(step for step in units if step is not None), UnitsStep(TIMERS)]
    step = host_file_step(_CRON, host, PROGRAM, purpose="systemd is not running here")
    return [] if step is None or not host.path("/etc/cron.d").is_dir() else [step]
