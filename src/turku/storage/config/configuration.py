"""The storage's configuration in two stages: what the files say (``StorageFile``), what was checked (``Storage``)."""

from __future__ import annotations

import glob
import logging
import os
import pwd
import shlex
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from turku.core import durable, lock
from turku.core.configuration import directory as configuration
from turku.core.configuration import identity_copy
from turku.core.configuration.directory import Fault, MergedFiles
from turku.core.secret import Secret, generate_secret
from turku.errors import ConfigurationError, InvalidValue
from turku.policy import retention, snapshot_mode
from turku.policy.anomaly import AnomalyThresholds
from turku.protocol.client import ApiClient, checked_url
from turku.protocol.messages import Registration, RegistrationAuth
from turku.storage.session import session_slots

DEFAULT_DIRECTORY = Path("/etc/turku-storage")
GENERATED_FILE = "10-storage.json"
_IDENTITY_LOCK = ".identity"
"""Hidden, as it lies among files of configuration, and is none that somebody forgot to name ``.json``."""
_PROGRAM = "turku-storage"
_VOLUME_REQUIRED = 'at least one is required, as {"data": {"path": "/srv/turku"}}'
_HOST_KEYS_GLOB = "/etc/ssh/ssh_host_*_key.pub"
_LOG = logging.getLogger(__name__)
_Value = TypeVar("_Value")

Percent = Annotated[float, Meta(ge=0, le=100)]
Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(gt=0, le=1)]
Words = Annotated[list[str], Meta(min_length=1)]
_ONE_LINE = r"\A[^\x00-\x1f\x7f]*\Z"
Line = Annotated[str, Meta(min_length=1, max_length=4096, pattern=_ONE_LINE)]
Name = Annotated[str, Meta(min_length=1, max_length=255, pattern=_ONE_LINE)]


class VolumeSection(msgspec.Struct, frozen=True):
    path: Line
    accept_new: bool = True
    accept_new_high_water_pct: Percent | None = None


class SourceAnomalySection(msgspec.Struct, frozen=True):
    """What of it is another for one source; what is not said is as for all."""

    enabled: bool | None = None
    minimum_files: Count | None = None
    deleted_share: Share | None = None
    rewritten_share: Share | None = None
    renamed_share: Share | None = None
    shrunk_share: Share | None = None
    replaced_share: Share | None = None
    unreadable_share: Share | None = None
    random_share: Share | None = None


class AnomalySection(msgspec.Struct, frozen=True):
    """When a backup is suspicious: ``turku.policy.anomaly.AnomalyThresholds``, as it may be written in a file."""

    enabled: bool = True
    minimum_files: Count = 20
    deleted_share: Share = 0.5
    rewritten_share: Share = 0.5
    renamed_share: Share = 0.25
    shrunk_share: Share = 0.8
    replaced_share: Share = 0.8
    unreadable_share: Share = 0.1
    random_share: Share = 0.5
    sources: dict[str, SourceAnomalySection] = {}


class StorageFile(msgspec.Struct, frozen=True, kw_only=True):
    """Every key of the storage's configuration files (contract, section 2), as it may be written there."""

    api_url: Line = ""
    name: Name = ""
    secret: Line = ""
    api_auth: Line | None = None
    api_auth_name: Line | None = None
    api_auth_secret: Line | None = None
    allow_plain_http: bool = False
    volumes: dict[str, VolumeSection] = {}
    accept_new_high_water_pct: Percent = 80.0
    snapshot_mode: str = snapshot_mode.DEFAULT
    preserve_hard_links: bool = True
    rsync_command: Words = msgspec.field(default_factory=lambda: ["rsync"])
    fake_super: Literal["auto"] | bool = "auto"
    sandbox: Literal["auto", "required", "off"] = "auto"
    allow_old_rsync: bool = False
    keep_devices: bool = False
    keep_privileged_attributes: bool = True
    compare_attributes_days: Annotated[float, Meta(ge=0)] = 7.0
    max_run_seconds: Annotated[float, Meta(gt=0)] | None = 7 * 24 * 3600.0
    max_run_bytes: Count | None = None
    max_run_files: Count | None = None
    parallel_sources: Annotated[int, Meta(ge=1, le=64)] = 2
    max_run_memory_bytes: Count | None = None
    machine_quota_bytes: Count | None = None
    low_water_free_pct: Percent = 3.0
    retention_floor: Annotated[str, Meta(max_length=1000, pattern=_ONE_LINE)] = "last 3 days"
    minimum_period_seconds: Annotated[float, Meta(ge=0)] = 3600.0
    trash_days: Annotated[float, Meta(ge=0, le=36500)] = 7.0
    slots: Annotated[int, Meta(ge=1, le=1000)] | None = None
    volume_slots: Annotated[int, Meta(ge=1, le=1000)] | None = None
    max_sessions: Annotated[int, Meta(ge=2, le=10_000)] | None = None
    machine_history_sessions: Annotated[int, Meta(ge=1, le=1000)] = session_slots.DEFAULT_HISTORY_SESSIONS
    restore_idle_seconds: Annotated[float, Meta(gt=0)] = 3600.0
    machines_see_history: bool = True
    anomaly: AnomalySection | None = None
    compare_with_source_percent: Percent = 0.0
    verify_bytes_per_second: Count | None = None
    drill_days: Annotated[float, Meta(ge=0, le=365)] = 30.0
    drill_directory: Line | None = None
    drill_files: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    drill_bytes: Count = 1024**3
    drill_paths: dict[str, list[str]] = {}
    drill_check_program: Words | None = None
    drill_check_seconds: Annotated[float, Meta(gt=0)] = 600.0
    ssh_ping_host: Line | None = None
    ssh_ping_port: Annotated[int, Meta(ge=1, le=65535)] = 22
    ssh_ping_user: Line | None = None
    ssh_ping_host_keys: list[Line] | None = None
    ssh_ping_host_keys_glob: Line = _HOST_KEYS_GLOB
    authorized_keys_file: Line | None = None
    authorized_keys_user: Line | None = None
    authorized_keys_command: Line = "turku-storage-ping"
    published: bool | None = None
    comment: Line | None = None
    log_file: Line = session_slots.DEFAULT_LOG_FILE
    lock_dir: Line | None = None
    var_dir: Line = session_slots.DEFAULT_VAR_DIR
    timezone: Line = "UTC"


@dataclass(frozen=True)
class Volume:
    """A directory that holds machines' directories."""

    name: str
    path: Path
    accept_new: bool
    accept_new_high_water_percent: float


@dataclass(frozen=True)
class StorageConfig:
    """A checked configuration; nothing in it is asked of the network or of a disk again."""

    config_dir: Path
    api_url: str
    allow_plain_http: bool
    name: str
    secret: Secret
    registration: RegistrationAuth | None
    volumes: tuple[Volume, ...]
    snapshot_mode: str
    preserve_hard_links: bool
    rsync_command: tuple[str, ...]
    fake_super: bool | None
    """None: where it is needed and the file system has user xattrs."""
    sandbox: Literal["auto", "required", "off"]
    allow_old_rsync: bool
    keep_devices: bool
    keep_privileged_attributes: bool
    compare_attributes_days: float
    """Whether root makes device nodes of those on machines; else they are left out."""
    max_run_seconds: float | None
    max_run_bytes: int | None
    parallel_sources: int
    """How many sources of one machine are backed up at once."""
    max_run_files: int | None
    max_run_memory_bytes: int | None
    """None: half of the host's memory."""
    machine_quota_bytes: int | None
    low_water_free_percent: float
    """New runs wait while a volume has less free than this (M11)."""
    retention_floor: str
    """What is kept here whatever a machine or a coordinator says (C4); empty for nothing. Already checked."""
    minimum_period_seconds: float
    """The least that the slot of a schedule lasts (M4), and what counts where a coordinator tells none."""
    trash_days: float
    """For how long what was pruned can be brought back."""
    slots: int | None
    """How many machines are backed up here at once; the coordinator's own number where there is none."""
    volume_slots: int | None
    """How many sources are written to one volume at once; None for any number."""
    max_sessions: int | None
    """How many sessions of machines go on at once; None: as many as fit into a quarter of the memory. Before this is
    read, ``session_slots`` has looked at the files by itself, and at ``machine_history_sessions`` too."""
    machine_history_sessions: int
    """How many looks at history and restores one machine may have at once."""
    restore_idle_seconds: float
    """A restore whose tunnel nobody used for so long ends."""
    machines_see_history: bool
    """Whether machines may look at history and have it back, where the coordinator lets them."""
    anomaly: AnomalyThresholds
    anomaly_of_sources: Mapping[str, AnomalyThresholds]
    """By ``UUID/SOURCE`` or ``SOURCE``; of all others, ``anomaly`` holds."""
    compare_with_source_percent: float
    """How many of the unchanged files of a source are compared with the machine's after each backup; 0 for none."""
    verify_bytes_per_second: int | None
    drill_days: float
    """How old a restore drill may become; 0 for none by the timer."""
    drill_directory: Path
    drill_files: int
    drill_bytes: int
    """Both: what a drill restores at most beside the declared paths, drawn by lot."""
    drill_paths: Mapping[str, tuple[str, ...]]
    """By ``UUID/SOURCE`` or ``SOURCE``: what every drill restores."""
    drill_check_program: tuple[str, ...] | None
    drill_check_seconds: float
    ssh_ping_host: str
    ssh_ping_port: int
    ssh_ping_user: str
    ssh_ping_host_keys: tuple[str, ...] | None
    ssh_ping_host_keys_glob: str
    authorized_keys_file: Path
    authorized_keys_user: str
    authorized_keys_command: str
    published: bool | None
    comment: str | None
    log_file: str
    lock_dir: Path
    var_dir: Path
    zone: ZoneInfo

    @property
    def machines_dir(self) -> Path:
        """Links to the machines' directories (contract, section 5)."""
        return self.var_dir / "machines"

    def anomaly_of(self, machine: str, source: str) -> AnomalyThresholds:
        """The thresholds of one source of the machine with that UUID; a machine has no say in them."""
        return _of_source(self.anomaly_of_sources, machine, source) or self.anomaly

    def drill_paths_of(self, machine: str, source: str) -> tuple[str, ...]:
        """What every drill of that source restores."""
        return _of_source(self.drill_paths, machine, source) or ()

    def api(self) -> ApiClient:
        return ApiClient(self.api_url, allow_plain_http=self.allow_plain_http)

    def host_keys(self) -> list[str]:
        """The SSH host keys that machines must see, ``TYPE KEY`` each, comments left out.

        Raises ConfigurationError where there is none: no machine could connect.
        """
        if self.ssh_ping_host_keys is not None:
            lines = list(self.ssh_ping_host_keys)
        else:
            lines = [_first_line(Path(path)) for path in sorted(glob.glob(self.ssh_ping_host_keys_glob))]  # noqa: PTH207  (an absolute pattern)
        keys = [" ".join(words[:2]) for line in lines if len(words := line.split()) >= 2]
        if not keys:
            raise ConfigurationError(
                f"no SSH host key: {self.ssh_ping_host_keys_glob} matches no readable key",
                hint="is sshd installed? ssh_ping_host_keys or ssh_ping_host_keys_glob say where its public keys are",
            )
        return keys


def _of_source(told: Mapping[str, _Value], machine: str, source: str) -> _Value | None:
    return told.get(f"{machine}/{source}", told.get(source))


def _thresholds(section: AnomalySection | None) -> AnomalyThresholds:
    told = msgspec.structs.asdict(section or AnomalySection())
    return AnomalyThresholds(**{key: value for key, value in told.items() if key != "sources"})


def _thresholds_of_sources(section: AnomalySection | None) -> dict[str, AnomalyThresholds]:
    general = _thresholds(section)
    return {
        key: msgspec.structs.replace(
            general, **{name: each for name, each in msgspec.structs.asdict(told).items() if each is not None}
        )
        for key, told in (section.sources if section else {}).items()
    }


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    except OSError as error:
        _LOG.warning("%s: cannot be read: %s", path, error.strerror)
        return ""


def load(
    config_dir: Path,
    *,
    api_auth_name: str | None = None,
    api_auth_secret: str | None = None,
) -> StorageConfig:
    """The checked configuration; ``api_auth_*`` are the command line's and win over the files.

    A missing ``name`` or ``secret`` is generated once into ``var_dir/config.d``. Warnings are logged.
    Raises ConfigurationError with every fault, each with its file and key.
    """
    tree, values, faults = _read(config_dir)
    if "secret" not in values and _heal_identity(tree, faults):
        tree, values, faults = _read(config_dir)
    if not {"name", "secret"} <= values.keys() and not _faults(config_dir, tree, values, faults):
        _generate_identity(Path(values.get("var_dir", StorageFile().var_dir)), values)
        tree, values, faults = _read(config_dir)
    for warning in _unknown_key_warnings(tree):
        _LOG.warning("%s", warning)
    if api_auth_name is not None and api_auth_secret is not None:
        values |= {"api_auth_name": api_auth_name, "api_auth_secret": api_auth_secret}
        values.pop("api_auth", None)
    checked = _check(config_dir, tree, values, faults)
    configuration.refuse(faults, program=_PROGRAM)
    if checked is None:
        raise AssertionError("a configuration without faults was not built")
    return checked


def _unknown_key_warnings(tree: MergedFiles) -> list[str]:
    warnings = configuration.ignored_file_warnings(tree)
    warnings += configuration.unknown_key_warnings(tree, _keys(StorageFile))
    section = tree.content.get("anomaly")
    if isinstance(section, dict):
        found = configuration.unknown_key_warnings(MergedFiles(section), _keys(AnomalySection))
        warnings += [f"{tree.place('anomaly')}.{warning}" for warning in found]
        sources = section.get("sources")
        for name, told in sources.items() if isinstance(sources, dict) else ():
            if isinstance(told, dict):
                found = configuration.unknown_key_warnings(MergedFiles(told), _keys(SourceAnomalySection))
                warnings += [f"{tree.place('anomaly')}.sources.{name}.{warning}" for warning in found]
    volumes = tree.content.get("volumes")
    for name, section in volumes.items() if isinstance(volumes, dict) else ():
        if isinstance(section, dict):
            found = configuration.unknown_key_warnings(MergedFiles(section), _keys(VolumeSection))
            warnings += [f"{tree.place(f'volumes.{name}')}.{warning}" for warning in found]
    return warnings


def _keys(kind: type[msgspec.Struct]) -> list[str]:
    return [info.encode_name for info in msgspec.structs.fields(kind)]


def _read(config_dir: Path) -> tuple[MergedFiles, dict[str, Any], list[Fault]]:
    # The state directory is named in /etc, and read below it: hence two readings.
    etc = config_dir / "config.d"
    upper = configuration.read_directories([etc])
    var_dir = upper.content.get("var_dir", StorageFile().var_dir)
    tree = upper
    if isinstance(var_dir, str) and var_dir.startswith("/"):
        tree = configuration.read_directories([Path(var_dir) / "config.d", etc])
    faults = list(tree.faults)
    return tree, configuration.convert(tree, StorageFile, faults), faults


def _generate_identity(var_dir: Path, values: dict[str, Any]) -> None:
    directory = durable.make_private_directory(var_dir / "config.d")
    with lock.exclusive(directory, _IDENTITY_LOCK):
        path = directory / GENERATED_FILE
        content = configuration.read_directories([directory]).content
        content = {key: content[key] for key in ("name", "secret") if key in content}
        for key, value in (("name", socket.getfqdn()), ("secret", generate_secret().reveal())):
            if key not in values and key not in content:
                content[key] = value
        write_identity(path, content)


def write_identity(path: Path, content: dict[str, Any]) -> None:
    """Let the generated file have this content, and its copy with it. Raises DurableWriteFailed."""
    text = identity_copy.text(content)
    durable.write_text(path, text)
    durable.write_text(identity_copy.path_of(path), text)


def _heal_identity(tree: MergedFiles, faults: list[Fault]) -> bool:
    """Return True where the damaged file of a generated identity has its content again; a fault where it cannot.

    Without its secret a storage would register as another one, and its machines would be nobody's.
    """
    var_dir = tree.content.get("var_dir", StorageFile().var_dir)
    path = Path(str(var_dir)) / "config.d" / GENERATED_FILE
    if not path.is_absolute() or not identity_copy.is_damaged(path, ("secret",)):
        return False
    found = identity_copy.read(path, ("name", "secret")) or identity_copy.read(path, ("secret",))
    if not found:
        faults[:] = [fault for fault in faults if fault.place != str(path)]
        faults.append(
            Fault(
                str(path),
                "is damaged: it had this storage's secret. Bring it back from a backup; or remove it to register as a "
                "new storage, under another name",
            )
        )
        return False
    with lock.exclusive(path.parent, _IDENTITY_LOCK):
        durable.write_text(path, identity_copy.text(found))
    _LOG.warning("%s was damaged and is healed from its copy", path)
    return True


def _faults(config_dir: Path, tree: MergedFiles, values: dict[str, Any], faults: list[Fault]) -> list[Fault]:
    """All faults: an identity is made only for a configuration that can be used."""
    found = list(faults)
    _check(config_dir, tree, values, found)
    return found


def _check(config_dir: Path, tree: MergedFiles, values: dict[str, Any], faults: list[Fault]) -> StorageConfig | None:
    file = StorageFile(**values)

    def fault(key: str, message: str) -> None:
        faults.append(Fault(tree.place(key), message))

    if not file.api_url:
        configuration.require(tree, "api_url", configuration.API_URL_REQUIRED, config_dir=config_dir, faults=faults)
    else:
        try:
            checked_url(file.api_url, allow_plain_http=file.allow_plain_http)
        except ConfigurationError as error:
            fault("api_url", f"{error.message.removeprefix('api_url: ')}; {error.hint}".removesuffix("; "))
    registration: RegistrationAuth | None = file.api_auth
    if file.api_auth_name is not None and file.api_auth_secret is not None:
        registration = Registration(name=file.api_auth_name, secret=file.api_auth_secret)
    elif (file.api_auth_name is None) != (file.api_auth_secret is None):
        fault("api_auth_name", "api_auth_name and api_auth_secret go together")
    if not file.volumes and "volumes" not in tree.content:
        configuration.require(tree, "volumes", _VOLUME_REQUIRED, config_dir=config_dir, faults=faults)
    elif not file.volumes and tree.content["volumes"] == {}:
        fault("volumes", "at least one is required")
    for name, section in file.volumes.items():
        if not Path(section.path).is_absolute():
            fault(f"volumes.{name}.path", f"{section.path!r} is not an absolute path")
    if file.snapshot_mode not in snapshot_mode.NAMES:
        fault("snapshot_mode", f"{file.snapshot_mode!r} is none of {', '.join(snapshot_mode.NAMES)}")
    if file.retention_floor:
        try:
            retention.parse(file.retention_floor)
        except InvalidValue as error:
            fault("retention_floor", f"{error.message}; {error.hint}")
    for key in ("var_dir", "lock_dir", "drill_directory", "authorized_keys_file"):
        path = getattr(file, key)
        if path is not None and not Path(path).is_absolute():
            fault(key, f"{path!r} is not an absolute path")
    if file.log_file not in ("systemd", "syslog") and not Path(file.log_file).is_absolute():
        fault("log_file", f"{file.log_file!r} is neither 'systemd', 'syslog' nor an absolute path")
    try:
        if not shlex.split(file.authorized_keys_command):
            fault("authorized_keys_command", "is empty: the command of the storage's session, as turku-storage-ping")
    except ValueError as error:
        fault("authorized_keys_command", f"{file.authorized_keys_command!r} is no shell command: {error}")
    try:
        zone = ZoneInfo(file.timezone)
    except (KeyError, ValueError, OSError):
        fault("timezone", f"{file.timezone!r} is no time zone of this system, as 'UTC' or 'Europe/Paris'")
        zone = ZoneInfo("UTC")
    try:
        user = file.ssh_ping_user or pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        # As in a container that runs as any number.
        fault("ssh_ping_user", f"is required: user {os.geteuid()}, who runs this, has no name on this system")
        return None
    keys_user = file.authorized_keys_user or user
    keys_file = file.authorized_keys_file
    if keys_file is None:
        try:
            keys_file = f"{pwd.getpwnam(keys_user).pw_dir}/.ssh/authorized_keys"
        except KeyError:
            key = "authorized_keys_user" if file.authorized_keys_user else "ssh_ping_user"
            fault(key, f"there is no user {keys_user!r} on this system, whose authorized_keys would be written")
    if faults:
        return None
    return StorageConfig(
        config_dir=config_dir,
        api_url=file.api_url,
        allow_plain_http=file.allow_plain_http,
        name=file.name,
        secret=Secret(file.secret),
        registration=registration,
        volumes=tuple(
            Volume(
                name=name,
                # Below it no symbolic link is followed (fs/tree.py); its own path may have some.
                path=Path(section.path).resolve(),
                accept_new=section.accept_new,
                accept_new_high_water_percent=file.accept_new_high_water_pct
                if section.accept_new_high_water_pct is None
                else section.accept_new_high_water_pct,
            )
            for name, section in file.volumes.items()
        ),
        snapshot_mode=file.snapshot_mode,
        preserve_hard_links=file.preserve_hard_links,
        rsync_command=tuple(file.rsync_command),
        fake_super=None if file.fake_super == "auto" else bool(file.fake_super),
        sandbox=file.sandbox,
        allow_old_rsync=file.allow_old_rsync,
        keep_devices=file.keep_devices,
        keep_privileged_attributes=file.keep_privileged_attributes,
        compare_attributes_days=file.compare_attributes_days,
        max_run_seconds=file.max_run_seconds,
        max_run_bytes=file.max_run_bytes,
        max_run_files=file.max_run_files,
        parallel_sources=file.parallel_sources,
        max_run_memory_bytes=file.max_run_memory_bytes,
        machine_quota_bytes=file.machine_quota_bytes,
        low_water_free_percent=file.low_water_free_pct,
        retention_floor=file.retention_floor,
        minimum_period_seconds=file.minimum_period_seconds,
        trash_days=file.trash_days,
        slots=file.slots,
        volume_slots=file.volume_slots,
        max_sessions=file.max_sessions,
        machine_history_sessions=file.machine_history_sessions,
        restore_idle_seconds=file.restore_idle_seconds,
        machines_see_history=file.machines_see_history,
        anomaly=_thresholds(file.anomaly),
        anomaly_of_sources=_thresholds_of_sources(file.anomaly),
        compare_with_source_percent=file.compare_with_source_percent,
        verify_bytes_per_second=file.verify_bytes_per_second,
        drill_days=file.drill_days,
        drill_directory=Path(file.drill_directory or f"{file.var_dir}/drill"),
        drill_files=file.drill_files,
        drill_bytes=file.drill_bytes,
        drill_paths={key: tuple(paths) for key, paths in file.drill_paths.items()},
        drill_check_program=None if file.drill_check_program is None else tuple(file.drill_check_program),
        drill_check_seconds=file.drill_check_seconds,
        ssh_ping_host=file.ssh_ping_host or socket.getfqdn(),
        ssh_ping_port=file.ssh_ping_port,
        ssh_ping_user=user,
        ssh_ping_host_keys=None if file.ssh_ping_host_keys is None else tuple(file.ssh_ping_host_keys),
        ssh_ping_host_keys_glob=file.ssh_ping_host_keys_glob,
        authorized_keys_file=Path(str(keys_file)),
        authorized_keys_user=keys_user,
        authorized_keys_command=file.authorized_keys_command,
        published=file.published,
        comment=file.comment,
        log_file=file.log_file,
        lock_dir=Path(file.lock_dir or f"{file.var_dir}/lock"),
        var_dir=Path(file.var_dir),
        zone=zone,
    )
