"""Who this machine is: its UUID and secret towards the API, its SSH key towards storages (contract, section 2)."""

from __future__ import annotations

import logging
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from turku.agent.configuration import IDENTITY_FILE, Agent
from turku.core import configuration, durable, lock
from turku.core.secret import Secret, generate_secret
from turku.errors import ConfigurationError, PolicyError
from turku.protocol.messages import MachineCredentials

_LOG = logging.getLogger(__name__)
_KEYGEN_TIMEOUT_SECONDS = 120.0
_COMMENT = "turku"
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
    directory = durable.make_private_directory(agent.var_dir / "config.d")
    with lock.exclusive(agent.lock_dir, "turku-agent-identity"):
        path = directory / IDENTITY_FILE
        # Read again under the lock: another run may have written it since the configuration was loaded.
        content = configuration.read_directories([directory]).content
        machine_uuid = agent.machine_uuid or content.get("machine_uuid") or str(uuid.uuid4())
        secret = agent.machine_secret or Secret(content.get("machine_secret") or generate_secret().reveal())
        durable.write_json(path, {"machine_uuid": machine_uuid, "machine_secret": secret.reveal()})
        _LOG.info("this machine is %s from now on (%s)", machine_uuid, path)
    return Identity(machine_uuid, secret)


def private_key_path(agent: Agent) -> Path:
    """The machine's SSH key. Raises ConfigurationError where there is none."""
    path = agent.var_dir / "ssh_key"
    if not path.exists():
        raise ConfigurationError(f"this machine has no SSH key: {path} does not exist", hint=_UNREGISTERED_HINT)
    return path


def ensure_public_key(agent: Agent) -> str:
    """The machine's public key, ``TYPE BASE64 COMMENT``; the pair is generated once.

    The private key is written last: it is there only when the pair is whole. A lost public half is derived anew.
    Raises CommandFailed, ConfigurationError (a public key file that holds none), LockHeld.
    """
    private, public = agent.var_dir / "ssh_key", agent.var_dir / "ssh_key.pub"
    if not (private.exists() and public.exists()):
        durable.make_private_directory(agent.var_dir)
        with lock.exclusive(agent.lock_dir, "turku-agent-identity"):
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
    from turku.agent import runtime_directory
    from turku.core import command

    if private.exists():
        if not public.exists():
            derived = command.run(
                ["ssh-keygen", "-y", "-P", "", "-f", private], timeout_seconds=_KEYGEN_TIMEOUT_SECONDS
            )
            line = " ".join((*derived.stdout.decode("ascii", "replace").split()[:2], _COMMENT))
            durable.write_text(public, f"{line}\n", mode=0o644)
        return
    with tempfile.TemporaryDirectory(prefix="key-", dir=runtime_directory.base(agent)) as scratch:
        fresh = Path(scratch) / "ssh_key"
        command.run(
            ["ssh-keygen", "-q", "-t", agent.ssh_key_type, "-N", "", "-C", _COMMENT, "-f", fresh],
            timeout_seconds=_KEYGEN_TIMEOUT_SECONDS,
        )
        durable.write_bytes(public, fresh.with_suffix(".pub").read_bytes(), mode=0o644)
        durable.write_bytes(private, fresh.read_bytes(), mode=0o600)
    _LOG.info("made the SSH key %s", private)
