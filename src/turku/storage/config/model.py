"""The storage's configuration: every key, declared once in the section of its consumer."""

import glob
import logging
import os
import pwd
import shlex
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from turku.core.configuration.declaration import Count, Key, Line, Percent, Seconds, Section, Words
from turku.core.secret import Secret
from turku.errors import ConfigurationError, InvalidValue
from turku.policy import retention, snapshot_mode
from turku.policy.anomaly import AnomalyThresholds
from turku.protocol.api_config import ApiConfig
from turku.storage.config.defaults import DEFAULT_HISTORY_SESSIONS, DEFAULT_LOG_FILE, DEFAULT_VAR_DIR

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
Name = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\A[^\x00-\x1f\x7f]*\Z")]
Slots = Annotated[int, Meta(ge=1, le=1000)]


def of_source(by_source: Mapping[str, _T], machine: str, source: str) -> _T | None:
    """Return the entry of ``UUID/SOURCE``, else that of ``SOURCE``, else None."""
    return by_source.get(f"{machine}/{source}", by_source.get(source))


def _log_file(text: str) -> str:
    if text not in ("systemd", "syslog") and not text.startswith("/"):
        raise InvalidValue(f"{text!r} is neither 'systemd', 'syslog' nor an absolute path")
    return text


def _timezone(text: Any) -> Any:
    try:
        return ZoneInfo(text) if isinstance(text, str) else text
    except (KeyError, ValueError, OSError):
        raise InvalidValue(
            f"{text!r} is not a time zone of this system; examples are 'UTC' and 'Europe/Paris'"
        ) from None


def _snapshot_mode(name: str) -> str:
    if name not in snapshot_mode.NAMES:
        raise InvalidValue(f"{name!r} is none of {', '.join(snapshot_mode.NAMES)}")
    return name


def _retention_rules(text: str) -> str:
    if text:
        retention.parse(text)
    return text


def _session_user(_values: Mapping[str, Any]) -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        # Containers may run as any number.
        raise InvalidValue(f"is required: user {os.geteuid()}, who runs this, has no name on this system") from None


def _keys_file(values: Mapping[str, Any]) -> Path:
    user = values["authorized_keys_user"]
    try:
        return Path(pwd.getpwnam(user).pw_dir, ".ssh", "authorized_keys")
    except KeyError:
        # SshConfig.contradictions reports it with the key that has the name.
        return Path(f"~{user}")


def _shell_command(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidValue(f"{text!r} is not a shell command: {error}") from None
    if not words:
        raise InvalidValue("is empty: the command of the storage's session is needed, such as turku-storage-ping")
    return text


class StorageState(Section, frozen=True, kw_only=True):
    """State, log and time zone."""

    var_dir: Annotated[Path, Key("State, and `machines/`: a link per machine, by UUID and by name.")] = Path(
        DEFAULT_VAR_DIR
    )
    lock_dir: Annotated[
        Path,
        Key(
            "Directory of the locks that keep two runs apart.",
            default_text="`lock` in `var_dir`",
            find_default=lambda values: values["var_dir"] / "lock",
        ),
    ]
    log_file: Annotated[Line, Key("`systemd` (the journal), `syslog`, or an absolute path.", check=_log_file)] = (
        DEFAULT_LOG_FILE
    )
    timezone: Annotated[ZoneInfo, Key("Time zone of snapshots' names and of retention's days.", parse=_timezone)] = (
        ZoneInfo("UTC")
    )

    @property
    def machines_dir(self) -> Path:
        """The directory of links to the machines' directories (contract, "On the storage's disk")."""
        return self.var_dir / "machines"


class StorageIdentity(Section, frozen=True, kw_only=True):
    """The storage's identity."""

    name: Annotated[
        Name,
        Key(
            "Name of this storage at the coordinator. It is kept in `var_dir/config.d/10-storage.json` from the first "
            "run on, so that a new host name does not make another storage.",
            default_text="host name",
        ),
    ] = ""
    secret: Annotated[
        Secret, Key("Secret that proves the identity. Generated beside `name`.", default_text="generated")
    ] = Secret("")
    published: Annotated[
        bool | None, Key("`false`: no new machines and no new backups here. Without it the coordinator's value stays.")
    ] = None
    comment: Annotated[Line | None, Key("A comment for people, one line.")] = None


class SshConfig(Section, frozen=True, kw_only=True):
    """SSH for machines."""

    ssh_ping_host: Annotated[
        Line,
        Key(
            "Host name or address where machines reach this storage's sshd.",
            default_text="full host name",
            find_default=lambda _values: socket.getfqdn(),
        ),
    ]
    ssh_ping_port: Annotated[Annotated[int, Meta(ge=1, le=65535)], Key("Port of that sshd.")] = 22
    ssh_ping_user: Annotated[
        Line, Key("The user whom machines log in as.", default_text="who runs the program", find_default=_session_user)
    ]
    ssh_ping_host_keys: Annotated[
        tuple[Line, ...] | None,
        Key("Public host keys, each `TYPE BASE64`, that machines must see there.", default_text="from the files"),
    ] = None
    ssh_ping_host_keys_glob: Annotated[Line, Key("Files that the public host keys are read from.")] = (
        "/etc/ssh/ssh_host_*_key.pub"
    )
    authorized_keys_user: Annotated[
        Line,
        Key(
            "Owner of `authorized_keys_file`.",
            default_text="`ssh_ping_user`",
            find_default=lambda values: values["ssh_ping_user"],
        ),
    ]
    authorized_keys_file: Annotated[
        Path,
        Key(
            "The file that holds the machines' keys. Lines of your own belong into a file of the same name with "
            "`.static` added. They come first.",
            default_text="`~/.ssh/authorized_keys` of that user",
            find_default=_keys_file,
        ),
    ]
    authorized_keys_command: Annotated[
        Line,
        Key(
            "Forced command, to which the machine's UUID is added. With an unprivileged `ssh_ping_user`: "
            "`sudo turku-storage-ping`.",
            check=_shell_command,
        ),
    ] = "turku-storage-ping"

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield a user who has no home directory for ``authorized_keys_file``, as there is no such user."""
        if not self.authorized_keys_file.is_absolute():
            key = "ssh_ping_user" if self.authorized_keys_user == self.ssh_ping_user else "authorized_keys_user"
            yield key, f"there is no user {self.authorized_keys_user!r} on this system, whose keys would be written"

    def host_keys(self) -> list[str]:
        """Return the SSH host keys that machines must see, each ``TYPE KEY`` without its comment.

        Raises ConfigurationError where there is none, since no machine could connect.
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


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    except OSError as error:
        _LOG.warning("%s: cannot be read: %s", path, error.strerror)
        return ""


class Volume(Section, frozen=True, kw_only=True):
    """A directory that holds machines' directories."""

    name: str = ""
    path: Annotated[
        Path,
        Key(
            "Absolute path. It must exist, and from its first use on have the volume's mark: a disk that is not "
            "mounted is not written around. See [volumes](../howto/volumes.md)."
        ),
    ]
    accept_new: Annotated[bool, Key("`false` keeps new machines away.")] = True
    accept_new_high_water_pct: Annotated[Percent, Key("The volume's own mark.", default_text="the storage's")] = 80.0


def _volumes(volumes: tuple[Volume, ...]) -> tuple[Volume, ...]:
    if not volumes:
        raise InvalidValue("at least one is required")
    # No symbolic link is followed below a volume's path (fs/tree.py). The path itself may have some.
    return tuple(msgspec.structs.replace(volume, path=volume.path.resolve()) for volume in volumes)


class DiskConfig(Section, frozen=True, kw_only=True):
    """Volumes and disk space."""

    accept_new_high_water_pct: Annotated[
        Percent, Key("A volume that is fuller than this, in per cent of space or of inodes, gets no new machines.")
    ] = 80.0
    volumes: Annotated[
        tuple[Volume, ...],
        Key(
            "Name to section, at least one. See [volumes](#volumes).",
            check=_volumes,
            example='{"data": {"path": "/srv/turku"}}',
        ),
    ]
    low_water_free_pct: Annotated[
        Percent, Key("New runs wait while a volume has less free, in per cent of space or of inodes.")
    ] = 3.0
    machine_quota_bytes: Annotated[Count | None, Key("Most disk space of one machine, history included.")] = None


class ReceivingConfig(Section, frozen=True, kw_only=True):
    """Snapshots and receiving."""

    snapshot_mode: Annotated[
        str, Key("Mode of sources that name none. See [snapshot modes](#snapshot-modes).", check=_snapshot_mode)
    ] = snapshot_mode.DEFAULT
    preserve_hard_links: Annotated[
        bool, Key("Keeps several names of one file as hard links where a source does not say otherwise.")
    ] = True
    rsync_command: Annotated[Words, Key("The rsync that receives, as a list of words.")] = ("rsync",)
    allow_old_rsync: Annotated[
        bool,
        Key(
            "Accepts an rsync older than 3.5.0 as the receiver. For a distribution that keeps an older number and "
            "repairs it."
        ),
    ] = False
    fake_super: Annotated[
        Literal["auto"] | bool,
        Key(
            "Keeps owners and devices in extended attributes instead of as such: `auto` (where the storage does not "
            "run as root and the file system can), `true`, `false`."
        ),
    ] = "auto"
    keep_devices: Annotated[
        bool,
        Key(
            "Makes device nodes of machines as such, where the storage runs as root. Otherwise they are left out, and "
            "each run says how many. A storage that keeps owners in attributes (`fake_super`) keeps them there. FIFOs "
            "and sockets are always kept."
        ),
    ] = False
    keep_privileged_attributes: Annotated[
        bool,
        Key(
            "Keeps `trusted.*` and `security.*` attributes (file capabilities, SELinux labels) as such, where the "
            "storage runs as root. Transfers that read or write attributes then keep `CAP_SETFCAP` and "
            "`CAP_SYS_ADMIN` inside their sandbox, where the system-call filter refuses everything else that these "
            "allow."
        ),
    ] = True
    compare_attributes_days: Annotated[
        Annotated[float, Meta(ge=0)],
        Key(
            "Longest time between comparisons of the ACLs and extended attributes of all entries. In between, only "
            "entries are compared whose change time has moved according to the agent. 0 compares all in each run."
        ),
    ] = 7.0


class LimitsConfig(Section, frozen=True, kw_only=True):
    """Containment of a run."""

    sandbox: Annotated[
        Literal["auto", "required", "off"] | None,
        Key(
            "Runs the receiving rsync under bubblewrap, where it sees its staging directory and the snapshot that it "
            "is compared with, and nothing else of the machine: `required` (without it, nothing is backed up or "
            "restored), `auto` (where it works, and each run without it says so), `off`. If the trial of the sandbox "
            "is killed or too slow, the run fails and is not made without one. A filter of system calls belongs to the "
            "sandbox: by libseccomp where that is installed (`libseccomp2`), otherwise from a table that knows x86_64 "
            "and aarch64. `turku-storage check` says whether one is in force.",
            default_text="`required` as root, otherwise `auto`",
        ),
    ] = None
    max_run_seconds: Annotated[
        Seconds | None,
        Key("Longest run of one source, longest restore and longest browsing of history. `null` for no limit."),
    ] = 7 * 24 * 3600.0
    max_run_bytes: Annotated[Count | None, Key("Most that a run may write.")] = None
    max_run_files: Annotated[Count | None, Key("Most files that a run may make.")] = None
    max_run_memory_bytes: Annotated[
        Count | None, Key("Most memory that a run's rsync may use.", default_text="half of the host's")
    ] = None


class SessionLimits(Section, frozen=True, kw_only=True):
    """Sessions and slots."""

    slots: Annotated[
        Slots | None,
        Key(
            "Most machines that are backed up to this storage at once, first backups included. It is reported to the "
            "coordinator. See [how many backups run at once](../howto/queue.md).",
            default_text="the coordinator's number, 32",
        ),
    ] = None
    volume_slots: Annotated[
        Slots | None,
        Key(
            "Most sources that are written to one volume at once. A source that finds no free slot within a minute "
            "stays due.",
            default_text="any number",
        ),
    ] = None
    parallel_sources: Annotated[
        Annotated[int, Meta(ge=1, le=64)],
        Key("Most sources of one machine that are backed up at once, 1 to 64. A machine may ask for fewer."),
    ] = 2
    max_sessions: Annotated[
        Annotated[int, Meta(ge=2, le=10_000)] | None,
        Key(
            "Most sessions of machines at once. As many more may be waiting for their request. Restores and browsing "
            "take at most half of them, so that backups are not kept out. One machine has at most one checkin, two "
            "restores by hand, `machine_history_sessions`, and four sessions that have not sent their request. One "
            "more is refused with `lock-held`.",
            default_text="as many as fit into a quarter of the memory at 20 MiB each, 16 to 1000",
        ),
    ] = None
    machine_history_sessions: Annotated[
        Slots, Key("Most sessions of one machine at once that browse history or restore with `turku-agent restore`.")
    ] = DEFAULT_HISTORY_SESSIONS
    restore_idle_seconds: Annotated[
        Seconds, Key("A restore by hand (`turku-agent-ping --restore`) ends when its tunnel was unused for so long.")
    ] = 3600.0
    machines_see_history: Annotated[
        bool,
        Key(
            "Lets machines browse their history and restore it with `turku-agent`, as far as the coordinator allows. "
            "`false`: never, whatever a coordinator says. Then only the storage's operator restores."
        ),
    ] = True


class RetentionConfig(Section, frozen=True, kw_only=True):
    """Retention and trash."""

    retention_floor: Annotated[
        Annotated[str, Meta(max_length=1000, pattern=r"\A[^\x00-\x1f\x7f]*\Z")],
        Key(
            "[Retention](#retention) rules of this storage. What they keep is kept, whatever a machine or the "
            'coordinator says. `""` for none.',
            check=_retention_rules,
        ),
    ] = "last 3 days"
    minimum_period_seconds: Annotated[
        Annotated[float, Meta(ge=0)],
        Key(
            "Shortest period in which one snapshot counts in `last N snapshots`, where a source's schedule is quicker "
            "or the coordinator does not report it. 0: what the coordinator reports."
        ),
    ] = 3600.0
    trash_days: Annotated[
        Annotated[float, Meta(ge=0, le=36500)],
        Key(
            "Days for which deleted snapshots can be brought back with `turku-storage trash`. They take space "
            "meanwhile, and count in the quota. 0: they are removed at once."
        ),
    ] = 7.0

    accept_removals: Annotated[
        bool,
        Key(
            "Lets the coordinator end the whole history of a machine that was removed or moved. It goes to the trash, "
            "and is deleted after `trash_days`, if that is above 0. `false`: the newest snapshots stay until an "
            "operator of this storage runs `turku-storage former remove`. See [removed "
            "machines](../howto/machines-and-storages.md#remove-a-machine)."
        ),
    ] = False


class IntegrityConfig(Section, frozen=True, kw_only=True):
    """Integrity and restore drills."""

    compare_with_source_percent: Annotated[
        Percent,
        Key(
            "After each backup, so many percent of the unchanged files are compared whole with the machine's, while "
            "its tunnel is open: at most 10,000 files and 4 GiB. One of the same size and time and of other content is "
            "an alarm."
        ),
    ] = 0.0
    verify_bytes_per_second: Annotated[Count | None, Key("Most that `turku-storage verify` reads in a second.")] = None
    drill_days: Annotated[
        Annotated[float, Meta(ge=0, le=365)],
        Key(
            "Age of the last good restore drill of a source from which on `turku-storage drill --due` makes another. 0 "
            "for none."
        ),
    ] = 30.0
    drill_directory: Annotated[
        Path,
        Key(
            "Directory that drills restore to. What is in it is removed.",
            default_text="`drill` in `var_dir`",
            find_default=lambda values: values["var_dir"] / "drill",
        ),
    ]
    drill_files: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)],
        Key("Most files that a drill restores, drawn by lot, beside `drill_paths`."),
    ] = 1000
    drill_bytes: Annotated[Count, Key("Most bytes of these files.")] = 1024**3
    drill_paths: Annotated[
        Mapping[str, tuple[str, ...]],
        Key(
            'Paths that every drill restores, directories with all that is in them: by source, as `{"etc": ["ssh", '
            '"passwd"]}`, or by machine and source, as `{"UUID/etc": ["passwd"]}`.'
        ),
    ] = {}
    drill_check_program: Annotated[
        Words | None,
        Key(
            "A program as a list of words, run on what a drill restored. See [proving "
            "backups](../howto/prove-backups.md#test-restored-data-with-a-check-program)."
        ),
    ] = None
    drill_check_seconds: Annotated[Seconds, Key("Longest time that this program may take.")] = 600.0

    def drill_paths_of(self, machine: str, source: str) -> tuple[str, ...]:
        """Return the paths that every drill of that source restores."""
        return of_source(self.drill_paths, machine, source) or ()


class AnomalyConfig(AnomalyThresholds, frozen=True, kw_only=True):
    """Anomaly."""

    sources: Annotated[
        Mapping[str, AnomalyThresholds],
        Key(
            'Other values for single sources, by name or by `UUID/NAME`, as `{"logs": {"rewritten_share": 0.9}}`. What '
            "they do not say is as above."
        ),
    ] = {}

    def thresholds_of(self, machine: str, source: str) -> AnomalyThresholds:
        """Return the thresholds of one source of the machine with that UUID. A machine has no say in them."""
        return of_source(self.sources, machine, source) or self


class StorageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The checked configuration of a storage."""

    config_dir: Path
    state: StorageState
    api: ApiConfig
    identity: StorageIdentity
    ssh: SshConfig
    disk: DiskConfig
    receiving: ReceivingConfig
    limits: LimitsConfig
    sessions: SessionLimits
    retention: RetentionConfig
    integrity: IntegrityConfig
    anomaly: Annotated[
        AnomalyConfig,
        Key(
            "When a backup looks like an attack.",
            default_text="see [Anomaly](#anomaly)",
            find_default=lambda _values: AnomalyConfig(),
        ),
    ]
