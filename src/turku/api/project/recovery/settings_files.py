"""Keys, certificates and settings, which a backup of the coordinator contains beside the database."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from turku.api.configuration import key_file, service_user
from turku.api.configuration.environment import Environment
from turku.api.project.recovery.manifest import OpenedBackup
from turku.core import durable
from turku.errors import ConfigurationError, UsageError

HASH_KEY, SECRET_KEY, ENVIRONMENT = "settings/hash_key", "settings/secret_key", "settings/environment"
_TLS = {"TURKU_TLS_CERTIFICATE": "settings/tls_certificate", "TURKU_TLS_KEY": "settings/tls_key"}
_STATE = "state/"
_LIMIT_BYTES = 1024 * 1024
_LEFT_OUT = ("db.sqlite3", ".", "before-recover")


def save(directory: Path, environment: Environment, variables: Mapping[str, str]) -> None:
    """Write the keys, the settings and the other files of the state directory into the backup's directory."""
    content = {HASH_KEY: _key(environment.hash_keys.reveal(), environment.hash_key_file)}
    content[SECRET_KEY] = _key(environment.secret_key.reveal(), environment.secret_key_file)
    content[ENVIRONMENT] = _settings(variables)
    keys = (environment.hash_key_file, environment.secret_key_file)
    for path in _state_files(environment.state_dir):
        if path not in keys:
            relative = path.relative_to(environment.state_dir)
            content[f"{_STATE}{relative}"] = durable.read_regular_file(path, limit_bytes=_LIMIT_BYTES)
    for variable, name in _TLS.items():
        path = Path(variables.get(variable) or "/")
        if path.is_file() and environment.state_dir not in path.parents:
            content[name] = path.read_bytes()[:_LIMIT_BYTES]
    for name, text in content.items():
        durable.make_private_directory((directory / name).parent)
        durable.write_bytes(directory / name, text)


def load(backup: OpenedBackup, environment: Environment, *, kept_as: str) -> list[Path]:
    """Write the keys and the files of the state directory to their places. Return the paths of what was there before.

    Raises UsageError where the environment has another hash key, with which no stored credential could be checked.
    """
    if environment.hash_keys and _lines(environment.hash_keys.reveal()) != _lines(backup.content(HASH_KEY).decode()):
        raise UsageError(
            "TURKU_HASH_KEY is not the key of the backup", hint=f"set it to the content of {backup.path / HASH_KEY}"
        )
    wanted = {}
    if not environment.hash_keys:
        wanted[environment.hash_key_file] = backup.content(HASH_KEY)
    if not environment.secret_key:
        wanted[environment.secret_key_file] = backup.content(SECRET_KEY)
    for name in backup.manifest.files:
        if name.startswith(_STATE):
            wanted[environment.state_dir / name.removeprefix(_STATE)] = backup.content(name)
    kept = []
    for path, content in wanted.items():
        durable.make_private_directory(path.parent)
        if os.path.lexists(path):
            if durable.read_regular_file(path, limit_bytes=_LIMIT_BYTES) == content:
                continue
            kept.append(path.with_name(f"{path.name}.{kept_as}"))
            durable.rename(path, kept[-1])
        durable.write_bytes(path, content)
    return kept


def missing_tls_files(backup: OpenedBackup, variables: Mapping[str, str]) -> dict[str, Path]:
    """Return the path of each file of TLS that the settings name, that is not there, and that the backup contains.

    They lie where the coordinator's user may not write. Keys are the names of the files in the backup.
    """
    named = {name: Path(variables[variable]) for variable, name in _TLS.items() if variables.get(variable)}
    return {name: path for name, path in named.items() if name in backup.manifest.files and not path.exists()}


def _settings(variables: Mapping[str, str]) -> bytes:
    """Return the settings file of the host, or the variables of this process where they are from elsewhere."""
    used = {name: value for name, value in variables.items() if name.startswith("TURKU_")}
    try:
        content = durable.read_regular_file(service_user.FILE, limit_bytes=_LIMIT_BYTES)
        known = service_user.parse(content.decode(), shown=service_user.FILE)
    except (OSError, ConfigurationError, UnicodeDecodeError):
        content, known = b"", {}
    if content and used.items() <= known.items():
        return content
    return service_user.to_text(dict(sorted(used.items()))).encode()


def _key(text: str, path: Path) -> bytes:
    return f"{text or key_file.read(path).reveal()}\n".encode()


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _state_files(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.rglob("*")):
        first = path.relative_to(directory).parts[0]
        # Databases are copied in their own way. Hidden files are being written.
        if first.startswith(_LEFT_OUT) or path.name.startswith(".") or path.name.endswith(".lock"):
            continue
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= _LIMIT_BYTES:
            yield path
