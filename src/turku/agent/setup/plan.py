"""The plan of ``turku-agent setup``: the steps from a bare host to a machine that is backed up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from turku.agent.config.model import DEFAULT_VAR_DIR
from turku.agent.setup import state_owner
from turku.agent.setup.config_files import MachineFiles
from turku.core import durable
from turku.core.setup import accounts
from turku.core.setup.directories import directory_steps
from turku.core.setup.host import Host
from turku.core.setup.host_files import HostFile, all_of
from turku.core.setup.plan import Plan
from turku.core.setup.programs import program_steps
from turku.core.setup.record import Kind, Made, Record, digest_of
from turku.core.setup.step import DONE, Finding, State, Step, host_file_step
from turku.core.setup.units import UnitsStep
from turku.errors import ConfigurationError

PROGRAM: Final = "turku-agent"
PACKAGE: Final = "turku.agent"
PROGRAMS: Final = ("turku-agent", "turku-agent-ping", "turku-update-config")
TIMERS: Final = ("turku-agent-ping.timer", "turku-update-config.timer")
_NEEDED: Final = {"ssh": "openssh-client", "ssh-keygen": "openssh-client", "rsync": "rsync"}
_CRON: Final = HostFile(PACKAGE, "cron", "turku-agent")


def agent_user() -> str:
    """Return the name of the user that the agent runs as."""
    [file] = all_of(PACKAGE, "sysusers.d")
    return accounts.declared_user(file).name


def require_programs(host: Host) -> None:
    """Raise ConfigurationError with all programs that an agent needs and that are not installed."""
    missing = {name: package for name, package in _NEEDED.items() if host.find_program(name) is None}
    if missing:
        raise ConfigurationError(
            f"not installed on this host: {', '.join(missing)}",
            hint=f"apt-get install {' '.join(dict.fromkeys(missing.values()))}",
        )


@dataclass(frozen=True)
class MachineRegistrationStep(Step):
    """The registration at the coordinator, with identity and key, or an update where the configuration changed."""

    address: str
    digest: str
    """Digest of the configuration that is sent."""
    register: Callable[[], None]
    comes_back: bool = False
    """True for a machine that takes the identity of a lost one, whatever it was registered as."""

    @property
    def title(self) -> str:  # type: ignore[override]  # computed, not stored
        what = "take the identity of a lost machine" if self.comes_back else "make this machine's identity and key"
        return f"{what}, and register at the coordinator, {self.address}"

    def find(self, host: Host, record: Record) -> Finding:  # noqa: ARG002  (only the record knows)
        made = record.find(Kind.REGISTRATION, self.address)
        if made is None or self.comes_back:
            return Finding(State.NEEDED)
        return DONE if made.digest == self.digest else Finding(State.NEEDED, "the configuration changed")

    def apply(self, host: Host, record: Record) -> None:  # noqa: ARG002  (the coordinator is elsewhere)
        self.register()
        record.add(Made(Kind.REGISTRATION, self.address, self.digest))


def plan(
    host: Host, chosen: MachineFiles, config_dir: Path, register: Callable[[], None], *, comes_back: bool = False
) -> Plan:
    """Return the plan. ``register`` registers the machine with the configuration that is then written."""
    digest = digest_of(durable.json_bytes([chosen.content, chosen.declared]))
    steps: list[Step] = [
        *program_steps(host, *PROGRAMS),
        *accounts.user_steps(PACKAGE, host, PROGRAM, purpose="the agent runs as this user"),
        *directory_steps(PACKAGE, host, PROGRAM),
        state_owner.step(Path(DEFAULT_VAR_DIR), agent_user()),
        *chosen.steps(config_dir),
        MachineRegistrationStep(chosen.api_url, digest, register, comes_back),
        *_periodic_steps(host),
    ]
    return Plan(PROGRAM, steps, host)


def _periodic_steps(host: Host) -> Sequence[Step]:
    """Return the steps that run the agent's programs at their times."""
    if host.has_systemd:
        units = (host_file_step(file, host, PROGRAM) for file in all_of(PACKAGE, "systemd"))
        return [*(step for step in units if step is not None), UnitsStep(TIMERS)]
    step = host_file_step(_CRON, host, PROGRAM, purpose="systemd is not running here")
    return [] if step is None or not host.path("/etc/cron.d").is_dir() else [step]
