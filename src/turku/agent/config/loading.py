"""Loading of the agent's configuration."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from turku.agent.config import profiles
from turku.agent.config.model import DEFAULT_VAR_DIR, AgentConfig, ProposedSources, SourceConfig
from turku.core.configuration import directory as configuration
from turku.core.configuration import identity_copy, loading
from turku.core.configuration.directory import Fault, MergedFiles
from turku.errors import InvalidValue
from turku.policy import names
from turku.protocol.api_config import override_registration

IDENTITY_FILE = "10-machine_uuid.json"
"""In ``var_dir/config.d``. Read with the rest of the configuration, written by the package ``identity``."""
IDENTITY_KEYS = ("machine_uuid", "machine_secret")
_PROGRAM = "turku-agent"
_LOG = logging.getLogger(__name__)


def load(config_dir: Path, *, api_auth_name: str | None = None, api_auth_secret: str | None = None) -> AgentConfig:
    """Return the checked configuration. ``api_auth_*`` are the command line's and win over the files.

    Warnings are logged. Raises ConfigurationError with every fault, each with its file and key.
    """
    return load_with_files(config_dir, api_auth_name=api_auth_name, api_auth_secret=api_auth_secret)[0]


def load_with_files(
    config_dir: Path, *, api_auth_name: str | None = None, api_auth_secret: str | None = None
) -> tuple[AgentConfig, MergedFiles]:
    """Return the checked configuration with the files that it is from. Raises as ``load`` does."""
    files = _read_files(config_dir)
    override_registration(files, api_auth_name, api_auth_secret)
    faults = list(files.faults)
    for warning in files.ignored + loading.unknown_key_warnings(AgentConfig, files):
        _LOG.warning("%s", warning)
    sources, unusable = _read_sources(config_dir / "sources.d", faults)
    given = {"sources": sources, "unusable_sources": unusable, "proposed": ProposedSources()}
    checked = loading.load(AgentConfig, files, faults, program=_PROGRAM, config_dir=config_dir, **given)
    return profiles.with_stored_profiles(checked), files


def foreign_owner(var_dir: Path) -> tuple[int, int] | None:
    """Return the user and group that ``var_dir`` belongs to, where this runs as root and they are not root."""
    if os.geteuid() != 0:
        return None
    try:
        status = var_dir.stat()
    except OSError:
        return None
    return (status.st_uid, status.st_gid) if status.st_uid != 0 else None


def _read_files(config_dir: Path) -> MergedFiles:
    merged = configuration.read_with_state(config_dir, default_var_dir=DEFAULT_VAR_DIR)
    var_dir = Path(str(merged.content.get("var_dir", DEFAULT_VAR_DIR)))
    if not all(key in merged.content for key in IDENTITY_KEYS):
        _use_copy_of_identity(merged, var_dir / "config.d" / IDENTITY_FILE)
    if foreign_owner(var_dir) is None:
        return merged
    # The agent runs as a user of its own, and this is root, which restores a file. Files that the agent's user can
    # write identify the machine and decide nothing else: root would run a program that they name.
    administrators = configuration.read_directories([config_dir / "config.d"])
    for key in IDENTITY_KEYS:
        if key in merged.content and key not in administrators.content:
            administrators.content[key], administrators.origins[key] = merged.content[key], merged.origins[key]
    administrators.faults[:] = merged.faults
    administrators.ignored[:] = merged.ignored
    return administrators


def _use_copy_of_identity(files: MergedFiles, path: Path) -> None:
    """Take the identity from its copy where its file is damaged. A damaged file without a copy is a fault."""
    if not identity_copy.is_damaged(path, IDENTITY_KEYS):
        return
    found = identity_copy.read(path, IDENTITY_KEYS)
    files.faults[:] = [fault for fault in files.faults if fault.place != str(path)]
    if found:
        _LOG.warning("%s is damaged; this machine is known by %s", path, identity_copy.path_of(path))
        missing = {key: text for key, text in found.items() if key not in files.content}
        files.content |= missing
        files.origins |= dict.fromkeys(missing, identity_copy.path_of(path))
        return
    files.faults.append(
        Fault(
            str(path),
            "is damaged: it had this machine's UUID and secret. Bring it back from a backup; or remove it, and run "
            "turku-agent re-enrol with a code of the coordinator's operator to have the machine's history again, or "
            "turku-update-config to register as a new machine",
        )
    )


def _read_sources(directory: Path, faults: list[Fault]) -> tuple[dict[str, SourceConfig], dict[str, str]]:
    """Return the sources of ``sources.d``, and the reason for each that cannot be used. Warnings are logged.

    One bad source keeps no other from its backups. A file that cannot be read is a fault, because it may have any name.
    """
    files = configuration.read_directories([directory])
    faults.extend(files.faults)
    for warning in files.ignored:
        _LOG.warning("%s", warning)
    sources: dict[str, SourceConfig] = {}
    unusable: dict[str, str] = {}
    folded: dict[str, str] = {}
    for name, options in files.content.items():
        lined = files.place_with_line(name)
        if isinstance(options, dict) and options.get("path") is None:
            _LOG.warning("%s: is not a source, because it has no path", lined)
            continue
        try:
            sources[name] = _source(name, options, lined)
            twin = folded.setdefault(names.fold(name), name)
            if twin != name:
                del sources[name]
                raise InvalidValue(f"differs from {twin} only by case or spelling: they could share a directory")
        except InvalidValue as error:
            unusable[name] = f"{lined}: {error.sentence}"
            _LOG.error("%s. It is not backed up by this.", unusable[name])
    return sources, unusable


def _source(name: str, options: Any, place: str) -> SourceConfig:
    names.source_name(name)
    if not isinstance(options, dict):
        raise InvalidValue('must be a dictionary of options, as {"path": "/etc"}')
    _require_sendable(options)
    return SourceConfig(name=name, path=_path(options["path"]), options=options, place=place)


def _require_sendable(options: Mapping[str, Any]) -> None:
    # Lone surrogates (how a path that is not UTF-8 could be smuggled into JSON) cannot travel to the API.
    try:
        msgspec.json.encode(options)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidValue(f"has an option that cannot be sent as JSON in UTF-8: {error}") from None


def _path(path: Any) -> str:
    # Only what could never be served ends the program here. ``turku-agent check`` and the coordinator ask
    # policy/source_options.py for the rest, which keeps one source out and not all.
    if not isinstance(path, str):
        raise InvalidValue(f"path: {path!r} is not text")
    if not path.startswith("/"):
        raise InvalidValue(f"path: {path!r} is not an absolute path")
    if any(character in path for character in "\0\n\r"):
        raise InvalidValue(
            f"path: {path!r} has a line break or NUL, which rsyncd cannot serve", hint="back up the directory above it"
        )
    return path
