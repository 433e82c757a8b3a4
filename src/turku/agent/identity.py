"""Who this machine is: its UUID and secret towards the API, its SSH key towards storages (contract, section 2)."""

from __future__ import annotations

import base64
import binascii
import logging
import tempfile
import uuid
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from turku.agent import state
from turku.agent.config.loading import IDENTITY_FILE, IDENTITY_KEYS
from turku.agent.config.model import AgentConfig
from turku.core import durable, lock
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.core.configuration import directory as configuration
from turku.core.configuration import identity_copy
from turku.core.secret import Secret, generate_secret
from turku.errors import ConfigurationError, DurableWriteFailed, InvalidValue, LockHeld
from turku.protocol.messages import MachineCredentials

_LOG = logging.getLogger(__name__)
_KEYGEN_TIMEOUT_SECONDS = 120.0
_COMMENT = "turku"
NEW_IDENTITY_FILE = "new_identity.json"
"""In ``var_dir`` while a rotation or re-enrolment is under way; see rotation.py."""
STAGED_KEY = "new_ssh_key"
"""Beside it, the key that is to come; its public half has ``.pub`` added."""
SCRATCH_PREFIX = "key-"
"""Of the directories in ``var_dir/run`` in which a key is made."""
PREVIOUS_KEY_SECONDS = 24 * 3600.0
"""How long a key that was replaced is still offered to storages: they learn of the new one within minutes."""
_PREVIOUS_KEY = "ssh_key.previous-"
_PREVIOUS_KEYS = 3
_KEY_MAGIC = b"openssh-key-v1\0"
_UNREGISTERED_HINT = "run turku-update-config once, as the user who runs the backups"


@dataclass(frozen=True)
class Identity:
    """UUID and secret of this machine."""

    uuid: str
    secret: Secret

    @property
    def credentials(self) -> MachineCredentials:
        return MachineCredentials(uuid=self.uuid, secret=self.secret.reveal())


def existing(agent: AgentConfig) -> Identity:
    """The identity that the configuration holds. Raises ConfigurationError where the machine was never registered."""
    if agent.identity.machine_uuid is None or agent.identity.machine_secret is None:
        missing = "machine_uuid" if agent.identity.machine_uuid is None else "machine_secret"
        raise ConfigurationError(
            f"this machine is not registered: no {missing} in {agent.config_dir / 'config.d'} "
            f"or {agent.state.var_dir / 'config.d'}",
            hint=_UNREGISTERED_HINT,
        )
    return Identity(agent.identity.machine_uuid, agent.identity.machine_secret)


def ensure(agent: AgentConfig) -> Identity:
    """The machine's identity; what is missing of it is generated once, in ``var_dir/config.d``.

    Raises LockHeld where another run does so now.
    """
    if agent.identity.machine_uuid is not None and agent.identity.machine_secret is not None:
        found = existing(agent)
        _keep_copy(agent, found)
        return found
    directory = state.directory(agent, "config.d")
    with locked(agent):
        path = directory / IDENTITY_FILE
        # Read again under the lock: another run may have written it since the configuration was loaded.
        content = configuration.read_directories([directory]).content
        machine_uuid = agent.identity.machine_uuid or content.get("machine_uuid") or str(uuid.uuid4())
        secret = agent.identity.machine_secret or Secret(content.get("machine_secret") or generate_secret().reveal())
        write(agent, machine_uuid, secret)
        _LOG.info("this machine is %s from now on (%s)", machine_uuid, path)
    return Identity(machine_uuid, secret)


def private_key_path(agent: AgentConfig) -> Path:
    """The machine's SSH key. Raises ConfigurationError where there is none, or a damaged one."""
    path = agent.state.var_dir / "ssh_key"
    if not path.exists():
        raise ConfigurationError(f"this machine has no SSH key: {path} does not exist", hint=_UNREGISTERED_HINT)
    if is_damaged_key(path):
        raise ConfigurationError(
            f"{path} is damaged: it is not a private key",
            hint="run turku-update-config, as the user who runs the backups: it makes a new one and says so to the "
            "coordinator",
        )
    return path


def is_damaged_key(path: Path) -> bool:
    """Return True where the file cannot be a private key: emptied, overwritten or cut off.

    Raises OSError where it cannot be read.
    """
    lines = path.read_bytes().strip().splitlines()
    is_framed = len(lines) > 2 and lines[0].startswith(b"-----BEGIN ") and lines[-1].startswith(b"-----END ")
    if not is_framed or b"PRIVATE KEY-----" not in lines[0] or b"PRIVATE KEY-----" not in lines[-1]:
        return True
    if b"OPENSSH" not in lines[0]:
        return False
    try:
        content = base64.b64decode(b"".join(lines[1:-1]), validate=True)
        return not _is_whole(memoryview(content))
    except (binascii.Error, ValueError):
        return True


def _is_whole(content: memoryview) -> bool:
    """Return True where the fields of OpenSSH's format (PROTOCOL.key) fill the content, and its check numbers agree."""
    if content[: len(_KEY_MAGIC)] != _KEY_MAGIC:
        return False
    rest, fields = content[len(_KEY_MAGIC) :], []
    # Cipher, key derivation and its options; then how many keys there are, the public one, and the private part.
    for number in range(5):
        if number == 3:
            rest = rest[4:]
        size = int.from_bytes(rest[:4], "big")
        fields.append(bytes(rest[4 : 4 + size]))
        if len(fields[-1]) != size or len(rest) < 4:
            return False
        rest = rest[4 + size :]
    private = fields[4]
    # What a passphrase protects cannot be looked into, and ours have none.
    return not rest and (fields[0] != b"none" or (len(private) > 8 and private[:4] == private[4:8]))


def previous_keys(agent: AgentConfig, *, clock: Clock = SYSTEM_CLOCK) -> list[Path]:
    """The machine's former SSH keys that a storage may still wait for, newest first; older ones are removed."""
    moments = {path: path.stat().st_mtime for path in agent.state.var_dir.glob(f"{_PREVIOUS_KEY}*")}
    now = clock.now().timestamp()
    young = sorted((path for path in moments if now - moments[path] < PREVIOUS_KEY_SECONDS), key=moments.__getitem__)
    kept = young[::-1][:_PREVIOUS_KEYS]
    for path in moments.keys() - set(kept):
        path.unlink(missing_ok=True)
    return kept


def keep_as_previous(agent: AgentConfig, private: bytes, *, clock: Clock = SYSTEM_CLOCK) -> None:
    """Go on offering a private key beside the one that takes its place."""
    name = f"{_PREVIOUS_KEY}{int(clock.now().timestamp())}"
    state.write_text(agent, agent.state.var_dir / name, private.decode("ascii"))


def has_staged_files(agent: AgentConfig) -> bool:
    """Return True where a change of secret and key is under way, or a killed one left something. Each ping asks."""
    found = []
    for directory in (agent.state.var_dir, agent.state.var_dir / "run"):
        with suppress(FileNotFoundError):
            found += [path.name for path in directory.iterdir()]
    begun = (NEW_IDENTITY_FILE, STAGED_KEY, ".new_", ".ssh_key", f".{IDENTITY_FILE}", SCRATCH_PREFIX)
    return any(name.startswith(begun) for name in found)


def locked(agent: AgentConfig) -> AbstractContextManager[None]:
    """Nobody else changes the identity during the block. Raises LockHeld."""
    return lock.exclusive(state.lock_directory(agent), "turku-agent-identity")


def write(agent: AgentConfig, machine_uuid: str, secret: Secret) -> None:
    """Let the machine be this one from now on; the identity's lock is held."""
    path = state.directory(agent, "config.d") / IDENTITY_FILE
    text = identity_copy.text(_content(machine_uuid, secret))
    state.write_text(agent, path, text)
    state.write_text(agent, identity_copy.path_of(path), text)


def _content(machine_uuid: str, secret: Secret) -> dict[str, str]:
    return {"machine_uuid": machine_uuid, "machine_secret": secret.reveal()}


def _keep_copy(agent: AgentConfig, found: Identity) -> None:
    """Heal the identity's file from what the copy had, or make the copy that an older agent did not."""
    path = agent.state.var_dir / "config.d" / IDENTITY_FILE
    content = _content(found.uuid, found.secret)
    is_damaged = identity_copy.is_damaged(path, IDENTITY_KEYS)
    # An identity that is set by hand is kept by whoever does so.
    if not is_damaged and (identity_copy.is_as(path, content) or not path.exists()):
        return
    try:
        with locked(agent):
            if is_damaged:
                write(agent, found.uuid, found.secret)
                _LOG.warning("%s is healed from its copy", path)
            else:
                state.write_text(agent, identity_copy.path_of(path), identity_copy.text(content))
    except (LockHeld, DurableWriteFailed) as error:
        _LOG.warning("%s is not kept twice: %s", path, error.message)


def ensure_public_key(agent: AgentConfig) -> str:
    """The machine's public key, ``TYPE BASE64 COMMENT``; the pair is generated once.

    The private key is written last: it is there only when the pair is whole. A lost or damaged public half is derived
    anew. A damaged private one is set aside, and a new pair takes its place: the secret is what the coordinator knows
    this machine by. Raises CommandFailed, ConfigurationError, LockHeld.
    """
    private, public = agent.state.var_dir / "ssh_key", agent.state.var_dir / "ssh_key.pub"
    if not (private.exists() and not is_damaged_key(private) and _public_line(public)):
        state.directory(agent)
        with locked(agent):
            _make_key(agent, private, public)
    line = _public_line(public)
    if line is None:
        raise ConfigurationError(f"{public} is not a public key", hint=f"remove it, and it is derived from {private}")
    return line


def _public_line(public: Path) -> str | None:
    """Return the public key that the file has; None where it has none."""
    from turku.policy import ssh_key

    try:
        line = public.read_text(encoding="utf-8", errors="replace").strip()
        ssh_key.ssh_public_key(line)
    except (FileNotFoundError, InvalidValue):
        return None
    return line


def _make_key(agent: AgentConfig, private: Path, public: Path) -> None:
    from turku.core import command

    if private.exists() and is_damaged_key(private):
        aside = private.with_name(f"{private.name}.damaged")
        durable.rename(private, aside)
        _LOG.error("%s is damaged and was set aside as %s; a new key takes its place", private, aside)
    if private.exists():
        if _public_line(public) is None:
            derived = command.run(
                ["ssh-keygen", "-y", "-P", "", "-f", private], timeout_seconds=_KEYGEN_TIMEOUT_SECONDS
            )
            line = " ".join((*derived.stdout.decode("ascii", "replace").split()[:2], _COMMENT))
            state.write_text(agent, public, f"{line}\n", mode=0o644)
        return
    generate_key(agent, private, public)
    _LOG.info("made the SSH key %s", private)


def generate_key(agent: AgentConfig, private: Path, public: Path) -> None:
    """Make a new pair at these paths of ``var_dir``, the private key last. Raises CommandFailed."""
    from turku.agent import runtime_directory
    from turku.core import command

    with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=runtime_directory.base(agent)) as scratch:
        fresh = Path(scratch) / "ssh_key"
        command.run(
            ["ssh-keygen", "-q", "-t", agent.tunnel.ssh_key_type, "-N", "", "-C", _COMMENT, "-f", fresh],
            timeout_seconds=_KEYGEN_TIMEOUT_SECONDS,
        )
        state.write_text(agent, public, fresh.with_suffix(".pub").read_text(encoding="ascii"), mode=0o644)
        state.write_text(agent, private, fresh.read_text(encoding="ascii"))
