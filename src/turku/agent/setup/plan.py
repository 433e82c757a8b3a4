"""The plan of ``turku-agent setup``: the steps from a bare host to a machine that is backed up."""

from collections.abc import Callable
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
from turku.core.setup.plan import Plan
from turku.core.setup.programs import program_steps
from turku.core.setup.record import Kind, Made, Record, digest_of
from turku.core.setup.step import DONE, Finding, State, Step
from turku.core.setup.units import periodic_steps

PROGRAM: Final = "turku-agent"
PACKAGE: Final = "turku.agent"
PROGRAMS: Final = ("turku-agent", "turku-agent-ping", "turku-update-config")
NEEDED: Final = {"ssh": "openssh-client", "ssh-keygen": "openssh-client", "rsync": "rsync"}


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
        state_owner.step(Path(DEFAULT_VAR_DIR), accounts.user_of(PACKAGE)),
        *chosen.steps(config_dir),
        MachineRegistrationStep(chosen.api_url, digest, register, comes_back),
        *periodic_steps(PACKAGE, host, PROGRAM),
    ]
    return Plan(PROGRAM, steps, host)
