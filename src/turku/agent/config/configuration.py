"""The agent's configuration, in two stages: what the files say (``AgentFile``), then what was checked (``Agent``)."""

from __future__ import annotations

import ipaddress
import logging
import os
import shlex
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from turku.core.configuration import directory as configuration
from turku.core.configuration import identity_copy
from turku.core.configuration.directory import Fault, MergedFiles
from turku.core.secret import Secret
from turku.errors import ConfigurationError, InvalidValue
from turku.policy import names
from turku.protocol.client import ApiClient, checked_url
from turku.protocol.messages import Registration, RegistrationAuth

DEFAULT_DIRECTORY = Path("/etc/turku-agent")
IDENTITY_FILE = "10-machine_uuid.json"
"""In ``var_dir/config.d``; read with the rest of the configuration, written by identity.py."""
IDENTITY_KEYS = ("machine_uuid", "machine_secret")
_PROGRAM = "turku-agent"
_LOG = logging.getLogger(__name__)

Line = Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"\A[^\x00-\x1f\x7f]*\Z")]
Words = Annotated[list[Line], Meta(min_length=1)]


class AgentFile(msgspec.Struct, frozen=True, kw_only=True):
    """Every key of the agent's configuration files (contract, section 2), as it may be written there."""

    api_url: Line = ""
    api_auth: Line | None = None
    api_auth_name: Line | None = None
    api_auth_secret: Line | None = None
    allow_plain_http: bool = False
    machine_uuid: Line | None = None
    machine_secret: Line | None = None
    environment_name: str | None = None
    service_name: str | None = None
    unit_name: str | None = None
    published: bool | None = None
    var_dir: Line = "/var/lib/turku-agent"
    lock_dir: Line | None = None
    rsyncd_command: Words = msgspec.field(default_factory=lambda: ["rsync"])
    rsyncd_local_address: Line = "127.0.0.1"
    rsyncd_user: Line = "root"
    rsyncd_group: Line = "*"
    ssh_command: Words = msgspec.field(default_factory=lambda: ["ssh"])
    ssh_key_type: Literal["ed25519", "ecdsa", "rsa"] = "ed25519"
    gonogo_program: str | list[str] | None = None
    restore_path: Line = "/var/backups/turku-agent/restore"
    restore_module: Line = "turku-restore"
    remote_restore: list[Line] = []
    storage_host_keys: dict[str, Annotated[list[Line], Meta(min_length=1)]] = {}
    trust_new_storages: Literal["first", "always", "never"] = "first"
    session_timeout_seconds: Annotated[float, Meta(gt=0)] = 24 * 3600.0
    parallel_sources: Annotated[int, Meta(ge=1, le=64)] | None = None


@dataclass(frozen=True)
class SourceConfig:
    """A directory of this machine that is backed up."""

    name: str
    path: str
    options: Mapping[str, Any]
    """All options as they were written, ``path`` too: they are sent to the API verbatim."""
    place: str = field(default="", compare=False)
    """The file and line that it is in."""


@dataclass(frozen=True)
class AgentConfig:
    """A checked configuration; nothing in it is asked of the network or of a disk again."""

    config_dir: Path
    api_url: str
    allow_plain_http: bool
    registration: RegistrationAuth | None
    machine_uuid: str | None
    machine_secret: Secret | None
    environment_name: str | None
    service_name: str | None
    unit_name: str
    published: bool | None
    sources: Mapping[str, SourceConfig]
    var_dir: Path
    lock_dir: Path
    rsyncd_command: tuple[str, ...]
    rsyncd_local_address: str
    rsyncd_user: str
    rsyncd_group: str
    ssh_command: tuple[str, ...]
    ssh_key_type: str
    gonogo_program: tuple[str, ...] | None
    restore_path: Path
    restore_module: str
    storage_host_keys: Mapping[str, tuple[str, ...]]
    """Storages that the administrator told us about: name to host keys, ``TYPE BASE64`` each."""
    trust_new_storages: str
    session_timeout_seconds: float
    parallel_sources: int | None
    """How many sources a storage may read at once; None where that is the storage's to say."""
    remote_restore: tuple[Path, ...] = ()
    """Directories below which restores may write that were asked for at the coordinator; none: no such restore."""

    def api(self) -> ApiClient:
        return ApiClient(self.api_url, allow_plain_http=self.allow_plain_http)


def load(
    config_dir: Path,
    *,
    api_auth_name: str | None = None,
    api_auth_secret: str | None = None,
) -> AgentConfig:
    """The checked configuration; ``api_auth_*`` are the command line's and win over the files. Warnings are logged.

    Raises ConfigurationError with every fault, each with its file and key.
    """
    tree = _read_files(config_dir)
    faults = list(tree.faults)
    values = configuration.convert(tree, AgentFile, faults)
    warnings = configuration.ignored_file_warnings(tree) + configuration.unknown_key_warnings(tree, _known_keys())
    for warning in warnings:
        _LOG.warning("%s", warning)
    if api_auth_name is not None or api_auth_secret is not None:
        given = {"api_auth_name": api_auth_name, "api_auth_secret": api_auth_secret}
        values |= {key: value for key, value in given.items() if value is not None}
        values.pop("api_auth", None)
    sources = _read_sources(config_dir / "sources.d", faults)
    checked = _check(config_dir, tree, values, sources, faults)
    configuration.refuse(faults, program=_PROGRAM)
    return checked


def foreign_owner(var_dir: Path) -> tuple[int, int] | None:
    """User and group that ``var_dir`` belongs to, where we are root and they are not."""
    if os.geteuid() != 0:
        return None
    try:
        status = var_dir.stat()
    except OSError:
        return None
    return (status.st_uid, status.st_gid) if status.st_uid != 0 else None


def _read_files(config_dir: Path) -> MergedFiles:
    tree = configuration.read_with_state(config_dir, default_var_dir=AgentFile().var_dir)
    var_dir = Path(str(tree.content.get("var_dir", AgentFile().var_dir)))
    if not all(key in tree.content for key in IDENTITY_KEYS):
        _use_copy_of_identity(tree, var_dir / "config.d" / IDENTITY_FILE)
    if foreign_owner(var_dir) is None:
        return tree
    # The agent runs as a user of its own, and this is root, at the restore of a file: what that user can write says
    # who the machine is, and nothing else. A program named there would be run by root.
    told = configuration.read_directories([config_dir / "config.d"])
    for key in IDENTITY_KEYS:
        if key in tree.content and key not in told.content:
            told.content[key], told.origins[key] = tree.content[key], tree.origins[key]
    told.faults[:] = tree.faults
    told.ignored[:] = tree.ignored
    return told


def _use_copy_of_identity(tree: MergedFiles, path: Path) -> None:
    """Take the identity from its copy where the file that has it is damaged; a fault where there is no copy."""
    if not identity_copy.is_damaged(path, IDENTITY_KEYS):
        return
    found = identity_copy.read(path, IDENTITY_KEYS)
    tree.faults[:] = [fault for fault in tree.faults if fault.place != str(path)]
    if found:
        _LOG.warning("%s is damaged; this machine is known by %s", path, identity_copy.path_of(path))
        missing = {key: text for key, text in found.items() if key not in tree.content}
        tree.content |= missing
        tree.origins |= dict.fromkeys(missing, identity_copy.path_of(path))
        return
    tree.faults.append(
        Fault(
            str(path),
            "is damaged: it had this machine's UUID and secret. Bring it back from a backup; or remove it, and run "
            "turku-agent re-enrol with a code of the coordinator's operator to have the machine's history again, or "
            "turku-update-config to register as a new machine",
        )
    )


def program_words(program: str | list[str]) -> tuple[str, ...]:
    """The argument list of a program given as a list, or as text with a shell's quoting (it is not given to a shell).

    Raises InvalidValue.
    """
    try:
        words = tuple(shlex.split(program)) if isinstance(program, str) else tuple(program)
    except ValueError as error:
        raise InvalidValue(f"{program!r} is not quoted as in a shell: {error}") from None
    if not words or not words[0] or any("\0" in word for word in words):
        raise InvalidValue(f"{program!r} names no program")
    return words


def _known_keys() -> list[str]:
    return [info.encode_name for info in msgspec.structs.fields(AgentFile)]


def _read_sources(directory: Path, faults: list[Fault]) -> dict[str, SourceConfig]:
    tree = configuration.read_directories([directory])
    faults.extend(tree.faults)
    for warning in configuration.ignored_file_warnings(tree):
        _LOG.warning("%s", warning)
    sources: dict[str, SourceConfig] = {}
    for name, options in tree.content.items():
        place = f"{tree.origins[name]}: {name}"
        lined = tree.place_with_line(name)
        if not isinstance(options, dict):
            faults.append(Fault(place, 'must be a dictionary of options, as {"path": "/etc"}'))
            continue
        if options.get("path") is None:
            _LOG.warning("%s: is no source, because it has no path", lined)
            continue
        try:
            names.source_name(name)
            _require_sendable(options)
            sources[name] = SourceConfig(name=name, path=_source_path(options["path"]), options=options, place=lined)
        except InvalidValue as error:
            faults.append(Fault(place, _sentence(error)))
    try:
        names.source_names(sources)
    except InvalidValue as error:
        faults.append(Fault(str(directory), _sentence(error)))
    return sources


def _require_sendable(options: Mapping[str, Any]) -> None:
    # Lone surrogates (how a path that is not UTF-8 could be smuggled into JSON) cannot travel to the API.
    try:
        msgspec.json.encode(options)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidValue(f"has an option that cannot be sent as JSON in UTF-8: {error}") from None


def _source_path(path: Any) -> str:
    if not isinstance(path, str):
        raise InvalidValue(f"path: {path!r} is not text")
    if not path.startswith("/"):
        raise InvalidValue(f"path: {path!r} is not an absolute path")
    if any(character in path for character in "\0\n\r"):
        raise InvalidValue(
            f"path: {path!r} has a line break or NUL, which rsyncd cannot serve", hint="back up the directory above it"
        )
    return path


def _sentence(error: InvalidValue) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message


def _check(
    config_dir: Path,
    tree: MergedFiles,
    values: dict[str, Any],
    sources: Mapping[str, SourceConfig],
    faults: list[Fault],
) -> AgentConfig:
    """The checked configuration, usable only where no fault was added."""
    file = AgentFile(**values)

    def fault(key: str, message: str) -> None:
        faults.append(Fault(tree.place(key), message))

    api_url = file.api_url
    if api_url:
        try:
            api_url = checked_url(api_url, allow_plain_http=file.allow_plain_http)
        except ConfigurationError as error:
            fault("api_url", f"{error.message.removeprefix('api_url: ')}; {error.hint}".removesuffix("; "))
    else:
        configuration.require(tree, "api_url", configuration.API_URL_REQUIRED, config_dir=config_dir, faults=faults)
    registration: RegistrationAuth | None = file.api_auth
    if file.api_auth_name is not None and file.api_auth_secret is not None:
        registration = Registration(name=file.api_auth_name, secret=file.api_auth_secret)
    elif (file.api_auth_name is None) != (file.api_auth_secret is None):
        fault(
            "api_auth_secret" if file.api_auth_name is None else "api_auth_name",
            "goes only with its other half: api_auth_name and api_auth_secret belong together",
        )
    for key, check in (("machine_uuid", names.machine_uuid), ("restore_module", names.source_name)):
        if (text := getattr(file, key)) is not None:
            try:
                values[key] = check(text)
            except InvalidValue as error:
                fault(key, _sentence(error))
    for key in ("environment_name", "service_name", "unit_name"):
        if (text := getattr(file, key)) is not None:
            try:
                # Empty is as good as absent: configuration management tends to write "".
                values[key] = names.label(text, kind=key.replace("_", " ")) if text.strip() else None
            except InvalidValue as error:
                fault(key, _sentence(error))
    for key in ("var_dir", "lock_dir", "restore_path"):
        path = getattr(file, key)
        if path is not None and not Path(path).is_absolute():
            fault(key, f"{path!r} is not an absolute path")
    for path in file.remote_restore:
        if not Path(path).is_absolute() or ".." in Path(path).parts:
            fault("remote_restore", f"{path!r} is not an absolute directory without '..'")
    storage_host_keys = _storage_host_keys(file.storage_host_keys, fault)
    gonogo_program = None
    if file.gonogo_program:
        try:
            gonogo_program = program_words(file.gonogo_program)
        except InvalidValue as error:
            fault("gonogo_program", error.message)
    try:
        address = _local_address(file.rsyncd_local_address)
    except ValueError:
        address = ""
        fault("rsyncd_local_address", f"{file.rsyncd_local_address!r} is no IP address, as 127.0.0.1 or ::1")
    return AgentConfig(
        config_dir=config_dir,
        api_url=api_url,
        allow_plain_http=file.allow_plain_http,
        registration=registration,
        machine_uuid=values.get("machine_uuid"),
        machine_secret=Secret(file.machine_secret) if file.machine_secret else None,
        environment_name=values.get("environment_name"),
        service_name=values.get("service_name"),
        unit_name=values.get("unit_name") or socket.gethostname(),
        published=file.published,
        sources=dict(sources),
        var_dir=Path(file.var_dir),
        lock_dir=Path(file.lock_dir or f"{file.var_dir}/lock"),
        rsyncd_command=tuple(file.rsyncd_command),
        rsyncd_local_address=address,
        rsyncd_user=file.rsyncd_user,
        rsyncd_group=file.rsyncd_group,
        ssh_command=tuple(file.ssh_command),
        ssh_key_type=file.ssh_key_type,
        gonogo_program=gonogo_program,
        restore_path=Path(file.restore_path),
        restore_module=file.restore_module,
        storage_host_keys=storage_host_keys,
        trust_new_storages=file.trust_new_storages,
        session_timeout_seconds=file.session_timeout_seconds,
        parallel_sources=file.parallel_sources,
        remote_restore=tuple(Path(path) for path in file.remote_restore),
    )


def _storage_host_keys(
    told: Mapping[str, list[str]], fault: Callable[[str, str], None]
) -> Mapping[str, tuple[str, ...]]:
    if not told:
        return {}
    from turku.policy import ssh_key

    checked: dict[str, tuple[str, ...]] = {}
    for name, keys in told.items():
        try:
            checked[names.storage_name(name)] = tuple(ssh_key.ssh_host_key(key).line for key in keys)
        except InvalidValue as error:
            fault(f"storage_host_keys.{name}", _sentence(error))
    return checked


def _local_address(text: str) -> str:
    return "127.0.0.1" if text == "localhost" else str(ipaddress.ip_address(text))
