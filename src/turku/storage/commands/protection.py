"""What protects this storage: the facts behind ``turku-storage check``, gathered without changing anything."""

from __future__ import annotations

import errno
import os
import platform
import re
import shlex
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from turku.core import command
from turku.errors import CommandFailed, ConfigurationError, TurkuError
from turku.storage.config.model import StorageConfig, Volume
from turku.storage.containment import availability, limits, seccomp
from turku.storage.containment.availability import SandboxProbeFailed
from turku.storage.fs import tree as fs
from turku.storage.registration import acting_user, login_shell
from turku.storage.rsync import version as rsync_version

_TIMEOUT_SECONDS = 10.0
_ANY_MACHINE = "00000000-0000-4000-8000-000000000000"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_SSHD_DIRECTORIES = "/usr/sbin:/usr/local/sbin:/sbin"
# What sshd is best told for the user that machines log in as; the key's own line says it again.
_SSHD_WANTED = {
    "gatewayports": ("no",),
    "allowtcpforwarding": ("remote",),
    "allowstreamlocalforwarding": ("no",),
    "allowagentforwarding": ("no",),
    "x11forwarding": ("no",),
    "permittunnel": ("no",),
    "permituserenvironment": ("no",),
}
# What the key's line cannot forbid (threats M6).
_SSHD_DANGERS = {
    "allowstreamlocalforwarding": (
        ("yes", "all", "remote"),
        "machines can make Unix sockets in every directory of that user",
    ),
    "permittunnel": (("yes", "point-to-point", "ethernet"), "machines can join the storage's network, if it is root"),
    "gatewayports": (("yes",), "tunnels into machines listen on every interface"),
}
# A variable that a machine sets may make the forced command load a program out of that machine's own backups.
_HARMLESS_VARIABLE = re.compile(r"LANG|LANGUAGE|LC_[A-Z*?]+|COLORTERM|NO_COLOR|TERM|TURKU_NO_VARIABLE")


class Verdict(Enum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Fact:
    """One thing that protects, or does not; ``text`` also says what to do about it."""

    subject: str
    verdict: Verdict
    text: str


def facts(configuration: StorageConfig) -> tuple[Fact, ...]:
    """All facts about this host, in the order in which they are best read."""
    return (
        *_address(configuration),
        _user(configuration),
        _sandbox(configuration),
        _filter(configuration),
        _rsync(configuration),
        *(fact for volume in configuration.disk.volumes for fact in _volume(configuration, volume)),
        *(fact for volume in configuration.disk.volumes for fact in _writers(volume)),
        *_private_files(configuration),
        *_sudo(configuration),
        *_sshd(configuration),
        _login_shell(configuration),
    )


def _login_shell(configuration: StorageConfig) -> Fact:
    subject, user = "login shell", configuration.ssh.ssh_ping_user
    try:
        found = login_shell.check(user)
    except CommandFailed as error:
        return Fact(subject, Verdict.WARN, f"not looked at: {error.message}")
    if not found:
        return Fact(subject, Verdict.OK, f"that of {user} runs the forced command, and prints nothing of its own")
    return Fact(
        subject,
        Verdict.FAIL,
        f"{found}; machines get that instead of answers: let {user} have a shell such as /bin/sh, whose start-up files "
        "(.bashrc, .zshenv, .cshrc, .ssh/rc) print nothing where nobody logs in",
    )


def _address(configuration: StorageConfig) -> Iterator[Fact]:
    host = configuration.ssh.ssh_ping_host
    if host in ("localhost", "::1") or host.startswith("127.") or host.endswith(".localdomain"):
        yield Fact(
            "address", Verdict.WARN, f"machines are told {host}, which leads them to themselves: set ssh_ping_host"
        )


def _user(configuration: StorageConfig) -> Fact:
    if os.geteuid() == 0:
        return Fact(
            "user", Verdict.OK, "runs as root: owners of files are kept as they are; the sandbox drops the rest"
        )
    if configuration.receiving.fake_super is False:
        return Fact("user", Verdict.WARN, "runs without root and fake_super is off: owners of files are not kept")
    return Fact("user", Verdict.OK, "runs without root: owners of files are kept in extended attributes")


def _sandbox(configuration: StorageConfig) -> Fact:
    try:
        found = availability.sandbox_availability(configuration)
    except SandboxProbeFailed as error:
        return Fact("sandbox", Verdict.FAIL, f"{error.message}; {error.hint}")
    if found.is_used:
        return Fact(
            "sandbox", Verdict.OK, "each rsync sees its staging directory and the base snapshot, and no network"
        )
    verdict = Verdict.FAIL if configuration.limits.sandbox == "required" else Verdict.WARN
    return Fact(
        "sandbox",
        verdict,
        f"rsync is not contained: {found.reason}; a fault in rsync would reach every machine's backups. "
        "Install bubblewrap, and set sandbox to required once it works",
    )


def _filter(configuration: StorageConfig) -> Fact:
    subject = "system-call filter"
    try:
        is_used = availability.sandbox_availability(configuration).is_used
    except SandboxProbeFailed:
        return Fact(subject, Verdict.WARN, "it is not known whether it is in force")
    if not is_used:
        return Fact(subject, Verdict.WARN, "not in force, as rsync is not contained")
    made = seccomp.available_filter()
    if made is None:
        return Fact(subject, Verdict.FAIL, f"not in force: {seccomp.UNAVAILABLE_REASON}")
    return Fact(subject, Verdict.OK, f"in force on this processor ({platform.machine()}), made by {made.maker}")


def _rsync(configuration: StorageConfig) -> Fact:
    try:
        rsync_version.require_supported(configuration)
        version = rsync_version.installed(configuration.receiving.rsync_command)
    except ConfigurationError as error:
        return Fact("rsync", Verdict.FAIL, f"{error.message}; {error.hint}")
    except CommandFailed as error:
        return Fact("rsync", Verdict.FAIL, error.message)
    if version is None or version.is_old:
        name = "of an unknown version" if version is None else str(version)
        return Fact(
            "rsync", Verdict.WARN, f"rsync {name} is accepted by allow_old_rsync, although {rsync_version.REASON}"
        )
    return Fact("rsync", Verdict.OK, f"rsync {version}")


def _volume(configuration: StorageConfig, volume: Volume) -> Iterator[Fact]:
    subject = f"volume {volume.name}"
    try:
        options = mount_options(volume.path)
        free_percent = limits.volume_space(volume.path).free_percent
    except (OSError, TurkuError):
        # That it is not there is told with the volumes.
        return
    missing = sorted({"nosuid", "nodev"} - options)
    if missing:
        yield Fact(
            subject,
            Verdict.WARN,
            f"{volume.path} is mounted without {','.join(missing)}: a setuid file or device of a machine would work "
            "here; mount it with nosuid,nodev",
        )
    else:
        yield Fact(subject, Verdict.OK, f"{volume.path} is mounted with nosuid,nodev")
    if free_percent < configuration.disk.low_water_free_pct:
        yield Fact(
            subject,
            Verdict.FAIL,
            f"{free_percent:.1f} % is free, below the low-water mark of {configuration.disk.low_water_free_pct:g} %: "
            "no backup starts; make room or add a volume",
        )
    if os.geteuid() != 0 and configuration.receiving.fake_super is not False:
        if _has_user_attributes(volume.path):
            yield Fact(subject, Verdict.OK, "has user extended attributes: owners and modes are kept in them")
        else:
            yield Fact(
                subject,
                Verdict.WARN,
                "has no user extended attributes: owners of files are not kept; use a file system that has them",
            )


def _has_user_attributes(path: Path) -> bool:
    try:
        os.getxattr(path, "user.turku.probe")
    except OSError as error:
        return error.errno == errno.ENODATA
    return True


def mount_options(path: Path, *, mounts: Path = Path("/proc/self/mountinfo")) -> set[str]:
    """The options of the mount that holds ``path``; OSError when they cannot be read."""
    target = path.resolve(strict=True)
    best, found = -1, set[str]()
    for line in mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        columns = line.split()
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), columns[4]))
        # The last one mounted at a place is the one that is seen.
        if target.is_relative_to(point) and len(point.parts) >= best:
            best, found = len(point.parts), set(columns[5].split(","))
    return found


def _private_files(configuration: StorageConfig) -> Iterator[Fact]:
    secret_files = [
        path
        for directory in (configuration.state.var_dir / "config.d", configuration.config_dir / "config.d")
        if directory.is_dir()
        for path in sorted(directory.iterdir())
        if path.suffix in (".json", ".yaml") and _names_a_secret(path)
    ]
    for path in [configuration.state.var_dir, *secret_files]:
        try:
            status = path.stat()
        except OSError:
            continue
        # A directory may let others in, as long as they cannot write; a file with a secret may not be read.
        is_directory = stat.S_ISDIR(status.st_mode)
        wrong = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH if is_directory else _OTHERS)
        if not is_directory and not path.parent.stat().st_mode & (stat.S_IXGRP | stat.S_IXOTH):
            # Nobody else can enter the directory, so that the file's own mode says nothing.
            wrong = 0
        mend = "chmod go-w" if is_directory else "chmod 0600"
        subject = str(path)
        if wrong:
            yield Fact(
                subject,
                Verdict.FAIL,
                f"its mode {stat.S_IMODE(status.st_mode):04o} lets others in: {mend}",
            )
        elif status.st_uid not in (0, os.geteuid()):
            yield Fact(subject, Verdict.FAIL, f"belongs to user {status.st_uid}, who could change it: chown it")
        else:
            yield Fact(subject, Verdict.OK, "private")


def _names_a_secret(path: Path) -> bool:
    try:
        return "secret" in path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _sudo(configuration: StorageConfig) -> Iterator[Fact]:
    """Whether sudo lets the user run the forced command, where it is one of sudo; root alone may ask."""
    words = shlex.split(configuration.ssh.authorized_keys_command)
    user = configuration.ssh.ssh_ping_user
    if os.geteuid() != 0 or words[0] != "sudo" or len(words) < 2 or words[1].startswith("-") or user == "root":
        return
    try:
        command.run(["sudo", "-n", "-l", "-U", user, *words[1:], _ANY_MACHINE], timeout_seconds=_TIMEOUT_SECONDS)
    except CommandFailed:
        yield Fact(
            "sudo",
            Verdict.FAIL,
            f"does not let {user} run {' '.join(words[1:])} for a machine: is the program there, and the rule of "
            "packaging/sudoers/turku-storage in /etc/sudoers.d?",
        )
    else:
        yield Fact("sudo", Verdict.OK, f"lets {user} run {' '.join(words[1:])}")


def _sshd(configuration: StorageConfig) -> Iterator[Fact]:
    subject, user = "sshd", configuration.ssh.authorized_keys_user
    search = f"{command.environment()['PATH']}:{_SSHD_DIRECTORIES}"
    program = shutil.which("sshd", path=search)
    if program is None:
        yield Fact(subject, Verdict.WARN, "no sshd on this host: is it in a container? its configuration was not seen")
        return
    try:
        asked = command.run(
            [program, "-T", "-C", f"user={user},host=localhost,addr=127.0.0.1"], timeout_seconds=_TIMEOUT_SECONDS
        )
    except CommandFailed as error:
        reason = error.details.splitlines()[-1] if error.details else error.message
        yield Fact(subject, Verdict.WARN, f"its configuration was not seen ({reason}); try again as root")
        return
    output = asked.stdout.decode("utf-8", "replace")
    yield sshd_fact(output, user=user)
    yield new_machines_fact(output, runs_as=acting_user.name_of(os.geteuid()))


def sshd_fact(output: str, *, user: str) -> Fact:
    """What ``sshd -T`` printed for ``user``, judged."""
    settings = _settings(output)
    if settings.get("disableforwarding") == "yes":
        return Fact("sshd", Verdict.FAIL, f"DisableForwarding is set for {user}: no machine can open its tunnel")
    if settings.get("allowtcpforwarding") in ("no", "local"):
        return Fact(
            "sshd", Verdict.FAIL, f"AllowTcpForwarding is not remote for {user}: no machine can open its tunnel"
        )
    if settings.get("permitlisten") == "none":
        return Fact("sshd", Verdict.FAIL, f"PermitListen is none for {user}: no machine can open its tunnel")
    dangers = [
        f"{name} {settings[name]} ({danger})"
        for name, (values, danger) in _SSHD_DANGERS.items()
        if settings.get(name) in values
    ]
    dangers += [
        f"acceptenv {pattern} (it may make a program of the machine run here)"
        for pattern in _values(output, "acceptenv")
        if not _HARMLESS_VARIABLE.fullmatch(pattern)
    ]
    if dangers:
        return Fact(
            "sshd",
            Verdict.FAIL,
            f"allows {user} what no line of a key can forbid: {', '.join(dangers)}; "
            "the sshd snippet for a Match block forbids it",
        )
    loose = [
        f"{name} {settings[name]}"
        for name, wanted in _SSHD_WANTED.items()
        if settings.get(name, wanted[0]) not in wanted
    ]
    if loose:
        return Fact(
            "sshd",
            Verdict.WARN,
            f"allows {user} more than backups need ({', '.join(loose)}); each machine's key forbids it, "
            "the sshd snippet for a Match block does so once more",
        )
    return Fact("sshd", Verdict.OK, f"forwards nothing for {user} but ports of loopback to machines")


def new_machines_fact(output: str, *, runs_as: str) -> Fact:
    """What ``sshd -T`` printed, judged by whether it asks us about keys, and as the user ``runs_as``."""
    subject, told = "new machines", _rest(output, "authorizedkeyscommand")
    if "authorized-keys" not in told.split():
        return Fact(
            subject, Verdict.OK, "let in by the next turku-storage-update-config (with AuthorizedKeysCommand: at once)"
        )
    asks_as = _rest(output, "authorizedkeyscommanduser")
    if asks_as != runs_as:
        return Fact(
            subject,
            Verdict.FAIL,
            f"sshd runs {told.split()[0]} as {asks_as}, who cannot read this storage's secret; "
            f"AuthorizedKeysCommandUser must be who runs turku-storage-update-config (now {runs_as})",
        )
    return Fact(subject, Verdict.OK, "let in at once: sshd asks this storage about keys")


def _settings(output: str) -> dict[str, str]:
    return dict(line.lower().partition(" ")[::2] for line in output.splitlines())


def _rest(output: str, name: str) -> str:
    """The last value of a keyword as it stands; empty where it is not set."""
    found = [rest for keyword, _, rest in (line.partition(" ") for line in output.splitlines()) if keyword == name]
    return found[-1] if found else ""


def _values(output: str, name: str) -> list[str]:
    """The words of every line of a keyword."""
    return [word for line in output.splitlines() for word in line.split()[1:] if line.split()[0] == name]


def _writers(volume: Volume) -> Iterator[Fact]:
    """Whether other users may make names on the volume, or take away what is there (threats N4)."""
    status = fs.status(volume.path)
    if status is None:
        # That it is not there is told with the volumes.
        return
    subject, mode = f"volume {volume.name}", stat.S_IMODE(status.st_mode)
    mend = f"chmod go-w {volume.path}"
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        yield Fact(
            subject,
            Verdict.FAIL,
            f"every user may rename and replace what lies in {volume.path} (mode {mode:04o}), machines' directories "
            f"among it; no catalog is kept there: {mend}",
        )
    elif mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Fact(
            subject,
            Verdict.WARN,
            f"users besides its owner may make names in {volume.path} (mode {mode:04o}), where the storage makes "
            f"machines' directories: {mend}",
        )
    elif status.st_uid not in (0, os.geteuid()):
        yield Fact(
            subject,
            Verdict.WARN,
            f"{volume.path} belongs to user {status.st_uid}, who may rename and replace what lies in it: chown it",
        )
