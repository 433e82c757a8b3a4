"""The plan of ``turku-agent setup``: the steps from a bare host to a machine that is backed up."""

from collections.abc import Callable
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
from turku.core.setup.record import digest_of
from turku.core.setup.registration import RegistrationStep
from turku.core.setup.step import Step
from turku.core.setup.units import periodic_steps

PROGRAM: Final = "turku-agent"
PACKAGE: Final = "turku.agent"
PROGRAMS: Final = ("turku-agent", "turku-agent-ping", "turku-update-config")
NEEDED: Final = {"ssh": "openssh-client", "ssh-keygen": "openssh-client", "rsync": "rsync"}


def plan(
    host: Host,
    chosen: MachineFiles,
    config_dir: Path,
    register: Callable[[], None],
    *,
    comes_back: bool = False,
    has_identity: bool = True,
) -> Plan:
    """Return the plan. ``register`` registers the machine with the configuration that is then written.

    A machine that ``comes_back`` takes the identity of a lost one. Until its sources are here, no timer backs up a
    system that is restored in part.
    """
    identity = "take the identity of a lost machine" if comes_back else "make this machine's identity and key"
    digest = digest_of(durable.json_bytes([chosen.content, chosen.declared]))
    steps: list[Step] = [
        *program_steps(host, *PROGRAMS),
        *accounts.user_steps(PACKAGE, host, PROGRAM, purpose="the agent runs as this user"),
        *directory_steps(PACKAGE, host, PROGRAM),
        state_owner.step(Path(DEFAULT_VAR_DIR), accounts.user_of(PACKAGE)),
        *chosen.steps(config_dir),
        RegistrationStep(
            f"{identity}, and register at the coordinator, {chosen.api_url}",
            chosen.api_url,
            digest,
            register,
            chosen.token_digest,
            is_repeated=comes_back or not has_identity,
        ),
        *([] if comes_back and not chosen.declared else periodic_steps(PACKAGE, host, PROGRAM)),
    ]
    return Plan(PROGRAM, steps, host)
