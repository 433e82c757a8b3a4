"""Who this machine is: its UUID and secret towards the API, its SSH key towards storages (contract, section 2)."""

from __future__ import annotations

import json
import logging
import tempfile
import uuid
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from turku.agent import state
from turku.agent.configuration import IDENTITY_FILE, Agent
from turku.core import configuration, lock
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.secret import Secret, generate_secret
from turku.errors import ConfigurationError, PolicyError
from turku.protocol.messages import MachineCredentials

_LOG = logging.getLogger(__name__)
_KEYGEN_TIMEOUT_SECONDS = 120.0
_COMMENT = "turku"
NEW_IDENTITY_FILE = "new_identity.json"
"""In ``var_dir`` while a rotation or re-enrolment is under way; see rotation.py."""
PREVIOUS_KEY_SECONDS = 24 * 3600.0
"""How long a key that was replaced is still offered to storages: they learn of the new one within minutes."""
_PREVIOUS_KEY = "ssh_key.previous-"
_PREVIOUS_KEYS = 3
_UNREGISTERED_HINT = "run turku-update-config once, as the user who runs the backups"


@dataclass(frozen=True)
class Identity:
    """UUID and secret of this machine."""

    uuid: str
    secret: Secret

    @property
    def credentials(self) -> MachineCredentials:
        return MachineCredentials(uuid=self.uuid, secret=self.secret.reveal())


def existing(agent: Agent) -> Identity:
    """The identity that the configuration holds. Raises ConfigurationError where the machine was never registered."""
    if agent.machine_uuid is None or agent.machine_secret is None:
        missing = "machine_uuid" if agent.machine_uuid is None else "machine_secret"
        raise ConfigurationError(
            f"this machine is not registered: no {missing} in {agent.config_dir / 'config.d'} "
            f"or {agent.var_dir / 'config.d'}",
            hint=_UNREGISTERED_HINT,
        )
    return Identity(agent.machine_uuid, agent.machine_secret)


def ensure(agent: Agent) -> Identity:
    """The machine's identity; what is missing of it is generated once, in ``var_dir/config.d``.

    Raises LockHeld where another run does so now.
    """
    if agent.machine_uuid is not None and agent.machine_secret is not None:
        return existing(agent)
    directory = state.directory(agent, "config.d")
    with locked(agent):
        path = directory / IDENTITY_FILE
        # Read again under the lock: another run may have written it since the configuration was loaded.
        content = configuration.read_directories([directory]).content
        machine_uuid = agent.machine_uuid or content.get("machine_uuid") or str(uuid.uuid4())
        secret = agent.machine_secret or Secret(content.get("machine_secret") or generate_secret().reveal())
        write(agent, machine_uuid, secret)
        _LOG.info("this machine is %s from now on (%s)", machine_uuid, path)
    return Identity(machine_uuid, secret)


def private_key_path(agent: Agent) -> Path:
    """The machine's SSH key. Raises ConfigurationError where there is none."""
    path = agent.var_dir / "ssh_key"
    if not path.exists():
        raise ConfigurationError(f"this machine has no SSH key: {path} does not exist", hint=_UNREGISTERED_HINT)
    return path


def previous_keys(agent: Agent, *, clock: Clock = SYSTEM_CLOCK) -> list[Path]:
    """The machine's former SSH keys that a storage may still wait for, newest first; older ones are removed."""
    moments = {path: path.stat().st_mtime for path in agent.var_dir.glob(f"{_PREVIOUS_KEY}*")}
    now = clock.now().timestamp()
    young = sorted((path for path in moments if now - moments[path] < PREVIOUS_KEY_SECONDS), key=moments.__getitem__)
    kept = young[::-1][:_PREVIOUS_KEYS]
    for path in moments.keys() - set(kept):
        path.unlink(missing_ok=True)
    return kept


def keep_as_previous(agent: Agent, private: bytes, *, clock: Clock = SYSTEM_CLOCK) -> None:
    """Go on offering a private key beside the one that takes its place."""
    name = f"{_PREVIOUS_KEY}{int(clock.now().timestamp())}"
    state.write_text(agent, agent.var_dir / name, private.decode("ascii"))


def locked(agent: Agent) -> AbstractContextManager[None]:
    """Nobody else changes the identity during the block. Raises LockHeld."""
    return lock.exclusive(state.lock_directory(agent), "turku-agent-identity")


def write(agent: Agent, machine_uuid: str, secret: Secret) -> None:
    """Let the machine be this one from now on; the identity's lock is held."""
    content = json.dumps({"machine_uuid": machine_uuid, "machine_secret": secret.reveal()}, indent=4, sort_keys=True)
    state.write_text(agent, state.directory(agent, "config.d") / IDENTITY_FILE, f"{content}\n")


def ensure_public_key(agent: Agent) -> str:
    """The machine's public key, ``TYPE BASE64 COMMENT``; the pair is generated once.

    The private key is written last: it is there only when the pair is whole. A lost public half is derived anew.
    Raises CommandFailed, ConfigurationError (a public key file that holds none), LockHeld.
    """
    private, public = agent.var_dir / "ssh_key", agent.var_dir / "ssh_key.pub"
    if not (private.exists() and public.exists()):
        state.directory(agent)
        with locked(agent):
            _make_key(agent, private, public)
    line = public.read_text(encoding="utf-8", errors="replace").strip()
    from turku.policy import ssh_key

    try:
        ssh_key.ssh_public_key(line)
    except PolicyError as error:
        raise ConfigurationError(
            f"{public}: {error.message}", hint=f"remove it, and it is derived anew from {private}"
        ) from error
    return line


def _make_key(agent: Agent, private: Path, public: Path) -> None:
    from turku.core import command

    if private.exists():
        if not public.exists():
            derived = command.run(
                ["ssh-keygen", "-y", "-P", "", "-f", private], timeout_seconds=_KEYGEN_TIMEOUT_SECONDS
            )
            line = " ".join((*derived.stdout.decode("ascii", "replace").split()[:2], _COMMENT))
            state.write_text(agent, public, f"{line}\n", mode=0o644)
        return
    generate_key(agent, private, public)
    _LOG.info("made the SSH key %s", private)


def generate_key(agent: Agent, private: Path, public: Path) -> None:
    """Make a new pair at these paths of ``var_dir``, the private key last. Raises CommandFailed."""
    from turku.agent import runtime_directory
    from turku.core import command

    with tempfile.TemporaryDirectory(prefix="key-", dir=runtime_directory.base(agent)) as scratch:
        fresh = Path(scratch) / "ssh_key"
        command.run(
            ["ssh-keygen", "-q", "-t", agent.ssh_key_type, "-N", "", "-C", _COMMENT, "-f", fresh],
            timeout_seconds=_KEYGEN_TIMEOUT_SECONDS,
        )
        state.write_text(agent, public, fresh.with_suffix(".pub").read_text(encoding="ascii"), mode=0o644)
        state.write_text(agent, private, fresh.read_text(encoding="ascii"))
