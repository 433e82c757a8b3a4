"""The machine's SSH key pair, by which storages know it."""

import base64
import binascii
import logging
import tempfile
from pathlib import Path

from turku.agent.config.model import AgentConfig, AgentState
from turku.agent.identity import machine_identity
from turku.agent.state import var_dir
from turku.core import command, durable
from turku.core.clock import SYSTEM_CLOCK, Clock
from turku.errors import ConfigurationError, InvalidValue
from turku.policy import ssh_key

_LOG = logging.getLogger(__name__)
_KEYGEN_TIMEOUT_SECONDS = 120.0
_COMMENT = "turku"
PREVIOUS_KEY_SECONDS = 24 * 3600.0
"""The time for which a replaced key is still offered to storages. They learn of the new one within minutes."""
_PREVIOUS_KEY = "ssh_key.previous-"
_PREVIOUS_KEYS = 3
_KEY_MAGIC = b"openssh-key-v1\0"


def private_key_path(configuration: AgentState) -> Path:
    """Return the path of the machine's private key. Raises ConfigurationError where it is missing or damaged."""
    path = configuration.var_dir / "ssh_key"
    if not path.exists():
        raise ConfigurationError(
            f"this machine has no SSH key: {path} does not exist", hint=machine_identity.UNREGISTERED_HINT
        )
    if is_damaged_key(path):
        raise ConfigurationError(
            f"{path} is damaged: it is not a private key",
            hint="run turku-update-config, as the user who runs the backups: it makes a new one and says so to the "
            "coordinator",
        )
    return path


def is_damaged_key(path: Path) -> bool:
    """Return True where the file cannot be a private key because it was emptied, overwritten or cut off.

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
        return not _is_intact(memoryview(content))
    except (binascii.Error, ValueError):
        return True


def _is_intact(content: memoryview) -> bool:
    """Return True where the fields of OpenSSH's format (PROTOCOL.key) fill the content and its check numbers agree."""
    if content[: len(_KEY_MAGIC)] != _KEY_MAGIC:
        return False
    rest, fields = content[len(_KEY_MAGIC) :], []
    # The fields are cipher, key derivation, its options, then the number of keys, the public key and the private part.
    for number in range(5):
        if number == 3:
            rest = rest[4:]
        size = int.from_bytes(rest[:4], "big")
        fields.append(bytes(rest[4 : 4 + size]))
        if len(fields[-1]) != size or len(rest) < 4:
            return False
        rest = rest[4 + size :]
    private = fields[4]
    # The content of a key with a passphrase cannot be checked. Ours have none.
    return not rest and (fields[0] != b"none" or (len(private) > 8 and private[:4] == private[4:8]))


def previous_keys(configuration: AgentState, *, clock: Clock = SYSTEM_CLOCK) -> list[Path]:
    """Return former private keys that a storage may still expect, newest first, and remove older ones."""
    moments = {path: path.stat().st_mtime for path in configuration.var_dir.glob(f"{_PREVIOUS_KEY}*")}
    now = clock.now().timestamp()
    young = sorted((path for path in moments if now - moments[path] < PREVIOUS_KEY_SECONDS), key=moments.__getitem__)
    kept = young[::-1][:_PREVIOUS_KEYS]
    for path in moments.keys() - set(kept):
        path.unlink(missing_ok=True)
    return kept


def keep_as_previous(configuration: AgentState, private: bytes, *, clock: Clock = SYSTEM_CLOCK) -> None:
    """Keep a replaced private key, so that it is still offered beside the new one."""
    name = f"{_PREVIOUS_KEY}{int(clock.now().timestamp())}"
    var_dir.write_text(configuration, configuration.var_dir / name, private.decode("ascii"))


def ensure_public_key(agent: AgentConfig) -> str:
    """Return the machine's public key as ``TYPE BASE64 COMMENT``. The key pair is generated once.

    The private key is written last, so it exists only with its public half. A lost or damaged public half is derived
    again. A damaged private key is set aside and replaced by a new pair, because the coordinator knows the machine by
    its secret. Raises CommandFailed, ConfigurationError, LockHeld.
    """
    private, public = agent.state.var_dir / "ssh_key", agent.state.var_dir / "ssh_key.pub"
    if not (private.exists() and not is_damaged_key(private) and _public_line(public)):
        var_dir.directory(agent.state)
        with machine_identity.locked(agent.state):
            _make_key(agent, private, public)
    line = _public_line(public)
    if line is None:
        raise ConfigurationError(f"{public} is not a public key", hint=f"remove it, and it is derived from {private}")
    return line


def _public_line(public: Path) -> str | None:
    """Return the public key in the file, or None where it has no valid one."""
    try:
        line = public.read_text(encoding="utf-8", errors="replace").strip()
        ssh_key.ssh_public_key(line)
    except (FileNotFoundError, InvalidValue):
        return None
    return line


def _make_key(agent: AgentConfig, private: Path, public: Path) -> None:
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
            var_dir.write_text(agent.state, public, f"{line}\n", mode=0o644)
        return
    generate_key(agent, private, public)
    _LOG.info("made the SSH key %s", private)


def generate_key(agent: AgentConfig, private: Path, public: Path) -> None:
    """Generate a key pair at these paths of ``var_dir``, the private key last. Raises CommandFailed."""
    base = var_dir.runtime_directory(agent.state)
    with tempfile.TemporaryDirectory(prefix=machine_identity.SCRATCH_PREFIX, dir=base) as scratch:
        fresh = Path(scratch) / "ssh_key"
        command.run(
            ["ssh-keygen", "-q", "-t", agent.tunnel.ssh_key_type, "-N", "", "-C", _COMMENT, "-f", fresh],
            timeout_seconds=_KEYGEN_TIMEOUT_SECONDS,
        )
        var_dir.write_text(agent.state, public, fresh.with_suffix(".pub").read_text(encoding="ascii"), mode=0o644)
        var_dir.write_text(agent.state, private, fresh.read_text(encoding="ascii"))
