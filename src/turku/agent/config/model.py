"""The agent's configuration: every key, declared once in the section of its consumer."""

import shlex
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from turku.core.configuration.declaration import Key, Line, Seconds, Section, Words
from turku.core.secret import Secret
from turku.errors import InvalidValue
from turku.policy import names
from turku.protocol.api_config import ApiConfig
from turku.protocol.messages import ProposedProfile

if TYPE_CHECKING:
    # A ping of a machine without profiles does not need it.
    from turku.policy.declaration.profiles import RefusedSource

DEFAULT_VAR_DIR = "/var/lib/turku-agent"


def program_words(program: str | Sequence[str]) -> tuple[str, ...]:
    """Return the argument list of a program, given as a list or as text with a shell's quoting. No shell reads it.

    Raises InvalidValue.
    """
    try:
        words = tuple(shlex.split(program)) if isinstance(program, str) else tuple(program)
    except ValueError as error:
        raise InvalidValue(f"{program!r} is not quoted as in a shell: {error}") from None
    if not words or not words[0] or any("\0" in word for word in words):
        raise InvalidValue(f"{program!r} names no program")
    return words


def _label(kind: str) -> Any:
    # Empty is as good as absent: configuration management tends to write "".
    return lambda text: names.label(text, kind=kind) if text is not None and text.strip() else None


def _local_address(text: str) -> str:
    import ipaddress

    try:
        return "127.0.0.1" if text == "localhost" else str(ipaddress.ip_address(text))
    except ValueError:
        raise InvalidValue(f"{text!r} is not an IP address such as 127.0.0.1 or ::1") from None


def _restore_directories(paths: Sequence[Path]) -> Sequence[Path]:
    for path in paths:
        if ".." in path.parts:
            raise InvalidValue(f"'{path}' is not an absolute directory without '..'")
    return paths


def _accepted_directories(paths: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(Path(names.target_directory(str(path))) for path in paths)


def _host_keys(by_storage: Mapping[str, Sequence[str]]) -> Mapping[str, tuple[str, ...]]:
    if not by_storage:
        return {}
    from turku.policy import ssh_key

    checked: dict[str, tuple[str, ...]] = {}
    for name, keys in by_storage.items():
        try:
            checked[names.storage_name(name)] = tuple(ssh_key.ssh_host_key(key).line for key in keys)
        except InvalidValue as error:
            raise InvalidValue(f"{name}: {error.message}", hint=error.hint) from None
    return checked


class MachineIdentity(Section, frozen=True, kw_only=True):
    """The machine's identity."""

    machine_uuid: Annotated[
        Line | None,
        Key(
            "UUID of this machine. Generated at the first registration into `var_dir/config.d/10-machine_uuid.json`.",
            default_text="generated",
            check=lambda text: None if text is None else names.machine_uuid(text),
        ),
    ] = None
    machine_secret: Annotated[
        Secret | None,
        Key(
            "Secret that proves the identity: 30 letters and digits. Generated beside `machine_uuid`.",
            default_text="generated",
        ),
    ] = None
    environment_name: Annotated[
        str | None,
        Key("Environment of the machine, for people, such as `production`.", check=_label("environment name")),
    ] = None
    service_name: Annotated[
        str | None, Key("Service within the environment, such as `shop-database`.", check=_label("service name"))
    ] = None
    unit_name: Annotated[
        str,
        Key(
            "Unit within the service, such as `shop-database/2`. The three together name the link on the storage.",
            default_text="host name",
            find_default=lambda _values: socket.gethostname(),
            check=lambda text: _label("unit name")(text) or socket.gethostname(),
        ),
    ]
    published: Annotated[
        bool | None, Key("`false` switches backups of this machine off. Without it the coordinator's value stays.")
    ] = None


class AgentState(Section, frozen=True, kw_only=True):
    """State."""

    var_dir: Annotated[
        Path,
        Key(
            "State: identity, SSH key (`ssh_key`, `ssh_key.pub`), the entries of the last session with each storage "
            "(`changed_entries`), runtime files. Private to the user who runs the agent."
        ),
    ] = Path(DEFAULT_VAR_DIR)
    lock_dir: Annotated[
        Path,
        Key(
            "Directory of the locks that keep two runs apart.",
            default_text="`lock` in `var_dir`",
            find_default=lambda values: values["var_dir"] / "lock",
        ),
    ]


class RsyncdConfig(Section, frozen=True, kw_only=True):
    """The rsync daemon that serves files."""

    rsyncd_command: Annotated[Words, Key("The rsync that serves files, as a list of words.")] = ("rsync",)
    rsyncd_local_address: Annotated[
        Line,
        Key(
            "Address that rsyncd listens on. Leave it on loopback, since only the tunnel needs to reach it.",
            check=_local_address,
        ),
    ] = "127.0.0.1"
    rsyncd_user: Annotated[
        Line,
        Key("User that rsyncd reads files as, where the agent runs as root. Otherwise it reads as the agent's user."),
    ] = "root"
    rsyncd_group: Annotated[Line, Key("Group, or `*` for all groups of that user.")] = "*"


class TunnelConfig(Section, frozen=True, kw_only=True):
    """SSH to the storages."""

    ssh_command: Annotated[
        Words,
        Key(
            'The ssh that opens tunnels, as a list of words. `["ssh", "-F", "/etc/turku-agent/ssh_config"]` adds '
            "options such as a `ProxyJump`. With `-F` or `-c` that file or option also chooses the ciphers."
        ),
    ] = ("ssh",)
    ssh_key_type: Annotated[
        Literal["ed25519", "ecdsa", "rsa"], Key("Type of the key that is generated: `ed25519`, `ecdsa` or `rsa`.")
    ] = "ed25519"
    storage_host_keys: Annotated[
        Mapping[str, Annotated[tuple[Line, ...], Meta(min_length=1)]],
        Key(
            "Host keys of storages: name to list of keys, each `TYPE BASE64`. They replace what was learned, and "
            "nothing new is learned beside them. See [storages a machine "
            "trusts](../howto/machine-identity.md#accept-a-storage).",
            check=_host_keys,
        ),
    ] = {}
    trust_new_storages: Annotated[
        Literal["first", "always", "never"],
        Key(
            "Storages that are trusted without being accepted by hand: those of the `first` contact with any storage, "
            "`always` every new name, or `never` one. A known name with other keys is accepted by hand in any case."
        ),
    ] = "first"
    session_timeout_seconds: Annotated[
        Seconds, Key("Longest session. A storage that holds its session open longer is cut off.")
    ] = 24 * 3600.0


class BackupConfig(Section, frozen=True, kw_only=True):
    """Backups."""

    gonogo_program: Annotated[
        tuple[str, ...] | None,
        Key(
            "Program that is run before each checkin, as a list, or as text that is quoted as for a shell. No shell "
            "reads it. Backups continue only when it exits with 0.",
            parse=lambda written: program_words(written) if written and isinstance(written, str) else written or None,
            check=lambda words: None if words is None else program_words(words),
        ),
    ] = None
    parallel_sources: Annotated[
        Annotated[int, Meta(ge=1, le=64)] | None,
        Key("Most sources that a storage may read at once. A storage may read fewer.", default_text="the storage's"),
    ] = None
    accept_profiles: Annotated[
        tuple[Path, ...],
        Key(
            "Absolute directories. Sources that the coordinator proposes by a profile are taken if they are one of "
            "these or lie below it. Without any, none is taken. See [profiles](../howto/profiles.md).",
            check=_accepted_directories,
        ),
    ] = ()


class RestoreConfig(Section, frozen=True, kw_only=True):
    """Restores."""

    restore_path: Annotated[Path, Key("Directory that restore mode opens for writing.")] = Path(
        "/var/backups/turku-agent/restore"
    )
    restore_module: Annotated[Line, Key("Name of the rsync module for it.", check=names.source_name)] = "turku-restore"
    remote_restore: Annotated[
        tuple[Path, ...],
        Key(
            "Absolute directories below which restores may write that were asked for at the coordinator. Without any, "
            "every such restore is refused. See [restores on behalf of others](../howto/restore-for-others.md).",
            check=_restore_directories,
        ),
    ] = ()


@dataclass(frozen=True)
class SourceConfig:
    """A directory of this machine that is backed up."""

    name: str
    path: str
    options: Mapping[str, Any]
    """All options as they were written, ``path`` included. They are sent to the coordinator verbatim."""
    place: str = field(default="", compare=False)
    """File and line, or profile."""
    profile: str = ""
    """The profile that it comes from. Empty for a source of this machine's own configuration."""
    accepted_below: str = ""
    """With a profile: the directory of ``accept_profiles`` that it lies below, or is."""

    @property
    def origin(self) -> str:
        """The profile or the place that it comes from, for people."""
        return f"profile {self.profile}" if self.profile else self.place


class StoredProfiles(msgspec.Struct, frozen=True, omit_defaults=True):
    """The profiles that the coordinator proposed last, word for word."""

    digest: str = ""
    profiles: list[ProposedProfile] = []


@dataclass(frozen=True)
class ProposedSources:
    """The coordinator's profiles as this machine keeps them, and what it refuses of them."""

    stored: StoredProfiles = field(default_factory=StoredProfiles)
    refused: "tuple[RefusedSource, ...]" = ()
    problem: str = ""
    """The reason for which the stored profiles cannot be read, or nothing."""


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The checked configuration of a machine."""

    config_dir: Path
    sources: Mapping[str, SourceConfig]
    proposed: ProposedSources
    api: ApiConfig
    identity: MachineIdentity
    state: AgentState
    rsyncd: RsyncdConfig
    tunnel: TunnelConfig
    backup: BackupConfig
    restore: RestoreConfig
    unusable_sources: Mapping[str, str] = {}
    """Sources of ``sources.d`` that cannot be used, by name, each with the place and the reason."""
