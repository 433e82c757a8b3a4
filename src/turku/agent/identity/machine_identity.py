"""The machine's identity towards the coordinator: its UUID and its secret (configuration reference)."""

import logging
import uuid
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from turku.agent.config.loading import IDENTITY_FILE, IDENTITY_KEYS
from turku.agent.config.model import AgentConfig, AgentState
from turku.agent.state import var_dir
from turku.core import lock
from turku.core.configuration import directory as configuration
from turku.core.configuration import identity_copy
from turku.core.secret import Secret, generate_secret
from turku.errors import ConfigurationError, DurableWriteFailed, LockHeld
from turku.protocol.messages import MachineCredentials

_LOG = logging.getLogger(__name__)
NEW_IDENTITY_FILE = "new_identity.json"
"""The file in ``var_dir`` that describes a rotation or re-enrolment under way (rotation.py)."""
STAGED_KEY = "new_ssh_key"
"""The new private key beside that file. The name of its public half ends with ``.pub``."""
SCRATCH_PREFIX = "key-"
"""The prefix of the directories in ``var_dir/run`` in which a key pair is generated."""
UNREGISTERED_HINT = "run turku-update-config once, as the user who runs the backups"


@dataclass(frozen=True)
class Identity:
    """The UUID and secret of this machine."""

    uuid: str
    secret: Secret

    @property
    def credentials(self) -> MachineCredentials:
        return MachineCredentials(uuid=self.uuid, secret=self.secret.reveal())


def existing(agent: AgentConfig) -> Identity:
    """Return the identity of the configuration. Raises ConfigurationError where the machine was never registered."""
    if agent.identity.machine_uuid is None or agent.identity.machine_secret is None:
        missing = "machine_uuid" if agent.identity.machine_uuid is None else "machine_secret"
        raise ConfigurationError(
            f"this machine is not registered: no {missing} in {agent.config_dir / 'config.d'} "
            f"or {agent.state.var_dir / 'config.d'}",
            hint=UNREGISTERED_HINT,
        )
    return Identity(agent.identity.machine_uuid, agent.identity.machine_secret)


def ensure(agent: AgentConfig) -> Identity:
    """Return the machine's identity. Missing parts are generated once, in ``var_dir/config.d``.

    Raises LockHeld where another run generates them now.
    """
    if agent.identity.machine_uuid is not None and agent.identity.machine_secret is not None:
        found = existing(agent)
        _keep_copy(agent.state, found)
        return found
    directory = var_dir.directory(agent.state, "config.d")
    with locked(agent.state):
        path = directory / IDENTITY_FILE
        # Read again under the lock: another run may have written it since the configuration was loaded.
        content = configuration.read_directories([directory]).content
        machine_uuid = agent.identity.machine_uuid or content.get("machine_uuid") or str(uuid.uuid4())
        secret = agent.identity.machine_secret or Secret(content.get("machine_secret") or generate_secret().reveal())
        write(agent.state, machine_uuid, secret)
        _LOG.info("this machine is %s from now on (%s)", machine_uuid, path)
    return Identity(machine_uuid, secret)


def has_staged_files(configuration: AgentState) -> bool:
    """Return True where a change of secret and key is under way, or a killed one left files. Each ping calls this."""
    found: list[str] = []
    for directory in (configuration.var_dir, configuration.var_dir / "run"):
        with suppress(FileNotFoundError):
            found += [path.name for path in directory.iterdir()]
    staged = (NEW_IDENTITY_FILE, STAGED_KEY, ".new_", ".ssh_key", f".{IDENTITY_FILE}", SCRATCH_PREFIX)
    return any(name.startswith(staged) for name in found)


def locked(configuration: AgentState) -> AbstractContextManager[None]:
    """Lock the identity against changes by others for the length of the block. Raises LockHeld."""
    return lock.exclusive(var_dir.lock_directory(configuration), "turku-agent-identity")


def write(configuration: AgentState, machine_uuid: str, secret: Secret) -> None:
    """Write the identity and its copy durably. The caller holds the identity's lock."""
    path = var_dir.directory(configuration, "config.d") / IDENTITY_FILE
    text = identity_copy.to_text(_content(machine_uuid, secret))
    var_dir.write_text(configuration, path, text)
    var_dir.write_text(configuration, identity_copy.path_of(path), text)


def _content(machine_uuid: str, secret: Secret) -> dict[str, str]:
    return {"machine_uuid": machine_uuid, "machine_secret": secret.reveal()}


def _keep_copy(configuration: AgentState, found: Identity) -> None:
    """Repair the identity's file from its copy, or write the copy that an older agent did not keep."""
    path: Path = configuration.var_dir / "config.d" / IDENTITY_FILE
    content = _content(found.uuid, found.secret)
    is_damaged = identity_copy.is_damaged(path, IDENTITY_KEYS)
    # An identity that is set by hand is in no file of ours.
    if not is_damaged and (identity_copy.has_content(path, content) or not path.exists()):
        return
    try:
        with locked(configuration):
            if is_damaged:
                write(configuration, found.uuid, found.secret)
                _LOG.warning("repaired %s from its copy", path)
            else:
                var_dir.write_text(configuration, identity_copy.path_of(path), identity_copy.to_text(content))
    except (LockHeld, DurableWriteFailed) as error:
        _LOG.warning("cannot keep a copy of %s: %s", path, error.message)
