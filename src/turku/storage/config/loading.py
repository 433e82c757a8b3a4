"""Loading of the storage's configuration, and the identity that a storage generates for itself once."""

import logging
import socket
from pathlib import Path

from turku.core import durable, lock
from turku.core.configuration import directory as configuration
from turku.core.configuration import identity_copy, loading
from turku.core.configuration.directory import Fault, MergedFiles, read_directories
from turku.core.secret import generate_secret
from turku.protocol.api_config import override_registration
from turku.storage.config.defaults import DEFAULT_VAR_DIR
from turku.storage.config.model import StorageConfig

GENERATED_FILE = "10-storage.json"
_IDENTITY_LOCK = ".identity"
"""Hidden: it lies among configuration files, and is not one whose ``.json`` somebody forgot."""
_PROGRAM = "turku-storage"
_LOG = logging.getLogger(__name__)


def load(config_dir: Path, *, api_auth_name: str | None = None, api_auth_secret: str | None = None) -> StorageConfig:
    """Return the checked configuration. ``api_auth_*`` are the command line's and win over the files.

    A missing ``name`` or ``secret`` is generated once into ``var_dir/config.d``. Warnings are logged.
    Raises ConfigurationError with every fault, each with its file and key.
    """
    return load_with_files(config_dir, api_auth_name=api_auth_name, api_auth_secret=api_auth_secret)[0]


def load_with_files(
    config_dir: Path,
    *,
    api_auth_name: str | None = None,
    api_auth_secret: str | None = None,
    writes_identity: bool = True,
) -> tuple[StorageConfig, MergedFiles]:
    """Return the checked configuration with the files that it is from. Raises as ``load`` does.

    Without ``writes_identity`` nothing is written: a missing name is the host's name, and a missing secret is empty.
    """
    files = _read(config_dir)
    faults = list(files.faults)
    if "secret" not in files.content and _repair_identity(files, faults, is_written=writes_identity):
        files = _read(config_dir)
        faults = list(files.faults)
    if not writes_identity:
        files.content.setdefault("name", socket.getfqdn())
    elif not {"name", "secret"} <= files.content.keys() and not _faults(config_dir, files, faults):
        _generate_identity(Path(files.content.get("var_dir", DEFAULT_VAR_DIR)), files)
        files = _read(config_dir)
        faults = list(files.faults)
    override_registration(files, api_auth_name, api_auth_secret)
    for warning in files.ignored + loading.unknown_key_warnings(StorageConfig, files):
        _LOG.warning("%s", warning)
    return loading.load(StorageConfig, files, faults, program=_PROGRAM, config_dir=config_dir), files


def write_identity(path: Path, content: dict[str, object]) -> None:
    """Write the generated identity and its copy. Raises DurableWriteFailed."""
    text = identity_copy.to_text(content)
    durable.write_text(path, text)
    durable.write_text(identity_copy.path_of(path), text)


def remember_name(configuration: StorageConfig) -> None:
    """Keep the name beside the secret, so that the storage is the same one after a file of config.d is gone.

    Raises DurableWriteFailed.
    """
    directory = configuration.state.var_dir / "config.d"
    with lock.exclusive(directory, _IDENTITY_LOCK):
        found = read_directories([directory]).content
        kept: dict[str, object] = {key: found[key] for key in ("name", "secret") if key in found}
        if "secret" in kept and kept.get("name") != configuration.identity.name:
            write_identity(directory / GENERATED_FILE, {**kept, "name": configuration.identity.name})


def remembered_name(var_dir: Path) -> str | None:
    """Return the name that is kept beside the secret, or None."""
    found = read_directories([var_dir / "config.d"]).content.get("name")
    return found if isinstance(found, str) else None


def _read(config_dir: Path) -> MergedFiles:
    return configuration.read_with_state(config_dir, default_var_dir=DEFAULT_VAR_DIR)


def _faults(config_dir: Path, files: MergedFiles, faults: list[Fault]) -> list[Fault]:
    """Return all faults: an identity is generated only for a configuration that can be used."""
    found = list(faults)
    loading.try_load(StorageConfig, files, found, config_dir=config_dir)
    return found


def _generate_identity(var_dir: Path, files: MergedFiles) -> None:
    directory = durable.make_private_directory(var_dir / "config.d")
    with lock.exclusive(directory, _IDENTITY_LOCK):
        path = directory / GENERATED_FILE
        content = configuration.read_directories([directory]).content
        content = {key: content[key] for key in ("name", "secret") if key in content}
        for key, value in (("name", socket.getfqdn()), ("secret", generate_secret().reveal())):
            if key not in files.content and key not in content:
                content[key] = value
        write_identity(path, content)


def _repair_identity(files: MergedFiles, faults: list[Fault], *, is_written: bool) -> bool:
    """Write a damaged identity anew from its copy, or only read the copy. Return True if a file was written.

    Without a copy it is a fault: without its secret a storage would register as another one, and its machines would
    belong to no storage.
    """
    path = Path(str(files.content.get("var_dir", DEFAULT_VAR_DIR))) / "config.d" / GENERATED_FILE
    if not path.is_absolute() or not identity_copy.is_damaged(path, ("secret",)):
        return False
    found = identity_copy.read(path, ("name", "secret")) or identity_copy.read(path, ("secret",))
    if not (found and is_written):
        faults[:] = [fault for fault in faults if fault.place != str(path)]
    if not found:
        faults.append(
            Fault(
                str(path),
                "is damaged: it had this storage's secret. Bring it back from a backup; or remove it to register as a "
                "new storage, under another name",
            )
        )
        return False
    if not is_written:
        _LOG.warning("%s is damaged; the next report or backup repairs it from its copy", path)
        for key in found.keys() - files.content.keys():
            files.content[key], files.origins[key] = found[key], identity_copy.path_of(path)
        return False
    with lock.exclusive(path.parent, _IDENTITY_LOCK):
        durable.write_text(path, identity_copy.to_text(found))
    _LOG.warning("%s was damaged and is repaired from its copy", path)
    return True
