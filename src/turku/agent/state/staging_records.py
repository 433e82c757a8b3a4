"""Records of staging directories: ``var_dir`` knows the staging directory of each target that a restore writes into.

A killed restore leaves its staging directory. The record lets the same command resume there, lets any other restore
into the target remove it, and lets backups exclude it.
"""

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from turku.agent.config.model import AgentState
from turku.agent.state import var_dir
from turku.core import durable

PREFIX = ".turku-restore-"
_NAME = re.compile(rf"{re.escape(PREFIX)}[0-9a-f]{{32}}", re.ASCII)
_STATE_DIRECTORY = "restores"
_STATE_LIMIT_BYTES = 16_384
_NAME_KEY_FILE = "name-key"
"""A random key that makes names unpredictable. It never changes, so that a restore finds what it had begun."""
_NAME_KEY_DIGITS = 64


class StagingRecord(msgspec.Struct, frozen=True):
    """The record of the staging directory in one target."""

    name: str
    job: str
    """The digest of the restore job. Only the same job can use what has arrived."""
    has_basis_files: bool
    """True while basis files may be in it, which must not be mistaken for received files."""
    target: str = ""
    """The path of the target: its bytes as hexadecimal digits."""
    is_target_new: bool = False
    """True where the restore created the target, so that nobody chose its mode, owner and time."""


def existing(configuration: AgentState) -> Iterator[Path]:
    """Yield the staging directories that exist: those of running restores and of interrupted ones."""
    try:
        files = sorted((configuration.var_dir / _STATE_DIRECTORY).glob("*.json"))
    except OSError:
        return
    for file in files:
        record = _read(file)
        if record is not None and record.target:
            with suppress(ValueError, OSError):
                path = Path(os.fsdecode(bytes.fromhex(record.target))) / record.name
                if path.is_dir():
                    yield path


def is_interrupted(configuration: AgentState, target: Path) -> bool:
    """Return True where an earlier restore into the target was interrupted."""
    record = read(configuration, target)
    return record is not None and (target / record.name).is_dir()


def can_resume(configuration: AgentState, target: Path, job: str) -> bool:
    """Return True where a restore job with this digest could use what an earlier run of it received."""
    record = read(configuration, target)
    if record is None or record.job != job or record.has_basis_files:
        return False
    return (target / record.name).is_dir()


def read(configuration: AgentState, target: Path) -> StagingRecord | None:
    """Return the record of the target, or None where there is none or it cannot be read."""
    return _read(_file(configuration, target))


def write(configuration: AgentState, target: Path, record: StagingRecord) -> None:
    """Write the record of the target durably. Raises DurableWriteFailed."""
    var_dir.write_text(configuration, _file(configuration, target), msgspec.json.encode(record).decode())


def remove(configuration: AgentState, target: Path) -> None:
    """Remove the record of the target. Raises OSError."""
    _file(configuration, target).unlink(missing_ok=True)


def secret_name(configuration: AgentState, purpose: str) -> str:
    """Return a name that is always the same for one purpose on this machine and that nobody else can predict."""
    file = var_dir.directory(configuration, _STATE_DIRECTORY) / _NAME_KEY_FILE
    try:
        key = durable.read_regular_file(file, limit_bytes=_STATE_LIMIT_BYTES)
    except OSError:
        key = b""
    if len(key) < _NAME_KEY_DIGITS:
        key = secrets.token_hex(_NAME_KEY_DIGITS // 2).encode()
        var_dir.write_text(configuration, file, key.decode())
    return PREFIX + hashlib.sha256(key + b"\0" + purpose.encode()).hexdigest()[:32]


def is_staging_name(name: bytes) -> bool:
    """Return True for a name that a staging directory may have."""
    return _NAME.fullmatch(os.fsdecode(name)) is not None


def _file(configuration: AgentState, target: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(target)).hexdigest()[:32]
    return var_dir.directory(configuration, _STATE_DIRECTORY) / f"{digest}.json"


def _read(file: Path) -> StagingRecord | None:
    try:
        content = durable.read_regular_file(file, limit_bytes=_STATE_LIMIT_BYTES)
        record = msgspec.json.decode(content, type=StagingRecord)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return None
    return record if _NAME.fullmatch(record.name) else None
