"""The facts about the protection of this host that ``turku-storage check`` shows. Finding them changes nothing."""

import errno
import os
import platform
import shlex
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from turku.core import command
from turku.core.configuration import exposed_secrets
from turku.errors import CommandFailed, ConfigurationError, TurkuError
from turku.storage.commands.protection.fact import Fact, fail, ok, warn
from turku.storage.config.model import LimitsConfig, ReceivingConfig, SshConfig, StorageConfig, Volume
from turku.storage.containment import bubblewrap, limits, seccomp
from turku.storage.containment.bubblewrap import SandboxProbeFailed
from turku.storage.fs import mounts
from turku.storage.fs import tree as fs
from turku.storage.registration import login_shell
from turku.storage.rsync import version as rsync_version

_TIMEOUT_SECONDS = 10.0
_ANY_MACHINE = "00000000-0000-4000-8000-000000000000"


def facts(configuration: StorageConfig) -> tuple[Fact, ...]:
    """Return the facts about this host, except those about sshd, in the order in which they are best read."""
    return (
        *_address(configuration.ssh),
        _user(configuration.receiving),
        _sandbox(configuration.limits),
        _filter(configuration.limits),
        _rsync(configuration.receiving),
        *(fact for volume in configuration.disk.volumes for fact in _volume(configuration, volume)),
        *(fact for volume in configuration.disk.volumes for fact in _writers(volume)),
        *_private_files(configuration),
        *_sudo(configuration.ssh),
        _login_shell(configuration.ssh),
    )


def _login_shell(configuration: SshConfig) -> Fact:
    subject, user = "login shell", configuration.ssh_ping_user
    try:
        found = login_shell.check(user)
    except CommandFailed as error:
        return warn(subject, f"not checked: {error.message}")
    if not found:
        return ok(subject, f"that of {user} runs the forced command, and prints nothing of its own")
    return fail(
        subject,
        f"{found}; machines get that instead of answers: let {user} have a shell such as /bin/sh, whose start-up files "
        "(.bashrc, .zshenv, .cshrc, .ssh/rc) print nothing where nobody logs in",
    )


def _address(configuration: SshConfig) -> Iterator[Fact]:
    host = configuration.ssh_ping_host
    if host in ("localhost", "::1") or host.startswith("127.") or host.endswith(".localdomain"):
        yield warn("address", f"machines get the address {host}, which is their own: set ssh_ping_host")


def _user(configuration: ReceivingConfig) -> Fact:
    if os.geteuid() == 0:
        return ok("user", "runs as root: owners of files are kept as they are; the sandbox drops the rest")
    if configuration.fake_super is False:
        return warn("user", "runs without root and fake_super is off: owners of files are not kept")
    return ok("user", "runs without root: owners of files are kept in extended attributes")


def _sandbox(configuration: LimitsConfig) -> Fact:
    try:
        found = bubblewrap.sandbox_availability(configuration)
    except SandboxProbeFailed as error:
        return fail("sandbox", f"{error.message}; {error.hint}")
    if found.is_used:
        return ok("sandbox", "each rsync sees its staging directory and the base snapshot, and no network")
    if bubblewrap.is_required(configuration):
        return fail(
            "sandbox",
            f"rsync cannot be contained: {found.reason}. Nothing is backed up or restored: install bubblewrap and "
            "allow it namespaces. To go on without it, set sandbox to auto, and a fault in rsync reaches every "
            "machine's backups",
        )
    return warn(
        "sandbox",
        f"rsync is not contained: {found.reason}; a fault in rsync would reach every machine's backups. "
        "Install bubblewrap, and set sandbox to required once it works",
    )


def _filter(configuration: LimitsConfig) -> Fact:
    subject = "system-call filter"
    try:
        is_used = bubblewrap.sandbox_availability(configuration).is_used
    except SandboxProbeFailed:
        return warn(subject, "it is not known whether it is in force")
    if not is_used:
        return warn(subject, "not in force, as rsync is not contained")
    made = seccomp.available_filter()
    if made is None:
        return fail(subject, f"not in force: {seccomp.UNAVAILABLE_REASON}")
    return ok(subject, f"in force on this processor ({platform.machine()}), made by {made.maker}")


def _rsync(configuration: ReceivingConfig) -> Fact:
    try:
        rsync_version.require_supported(configuration)
        version = rsync_version.installed(configuration.rsync_command)
    except ConfigurationError as error:
        return fail("rsync", f"{error.message}; {error.hint}")
    except CommandFailed as error:
        return fail("rsync", error.message)
    if version is None or version.is_old:
        name = "of an unknown version" if version is None else str(version)
        return warn("rsync", f"rsync {name} is accepted by allow_old_rsync, although {rsync_version.REASON}")
    return ok("rsync", f"rsync {version}")


def _volume(configuration: StorageConfig, volume: Volume) -> Iterator[Fact]:
    subject = f"volume {volume.name}"
    try:
        mount = mounts.mount_of(volume.path)
        is_on_root = mounts.is_on_root_file_system(volume.path)
        free_percent = limits.free_space(volume.path).free_percent
    except (OSError, TurkuError):
        # The report on the volumes says that it is absent.
        return
    missing = sorted({"nosuid", "nodev"} - mount.options)
    if is_on_root:
        yield warn(
            subject,
            f"{volume.path} is on the file system of the operating system: either its disk is not mounted, or backups "
            "share the space of the system; mount a file system of its own there, with nosuid,nodev",
        )
    elif missing:
        yield warn(
            subject,
            f"{volume.path} is mounted without {','.join(missing)}: a setuid file or device of a machine would work "
            "here; mount it with nosuid,nodev",
        )
    else:
        yield ok(subject, f"{volume.path} is mounted with nosuid,nodev")
    if free_percent < configuration.disk.low_water_free_pct:
        yield fail(
            subject,
            f"{free_percent:.1f} % is free, below the low-water mark of {configuration.disk.low_water_free_pct:g} %: "
            "no backup starts; make room or add a volume",
        )
    if os.geteuid() != 0 and configuration.receiving.fake_super is not False:
        if _has_user_attributes(volume.path):
            yield ok(subject, "has user extended attributes: owners and modes are kept in them")
        else:
            yield warn(
                subject,
                "has no user extended attributes: owners of files are not kept; use a file system that has them",
            )


def _has_user_attributes(path: Path) -> bool:
    try:
        os.getxattr(path, "user.turku.probe")
    except OSError as error:
        return error.errno == errno.ENODATA
    return True


def _private_files(configuration: StorageConfig) -> Iterator[Fact]:
    var_dir = configuration.state.var_dir
    with suppress(OSError):
        status = var_dir.stat()
        # Others may enter the directory as long as they cannot write.
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            mode = f"its mode {stat.S_IMODE(status.st_mode):04o} lets others in"
            yield fail(str(var_dir), f"{mode}: chmod go-w {shlex.quote(str(var_dir))}")
        elif status.st_uid not in (0, os.geteuid()):
            yield fail(str(var_dir), f"belongs to user {status.st_uid}, who could change it: chown it")
        else:
            yield ok(str(var_dir), "private")
    for file in exposed_secrets.in_directories((var_dir / "config.d", configuration.config_dir / "config.d")):
        yield fail(str(file.path), file.fault) if file.fault else ok(str(file.path), "private")


def _sudo(configuration: SshConfig) -> Iterator[Fact]:
    """Yield whether sudo lets the user run the forced command, where that uses sudo. Only root may ask sudo."""
    words = shlex.split(configuration.authorized_keys_command)
    user = configuration.ssh_ping_user
    if os.geteuid() != 0 or words[0] != "sudo" or len(words) < 2 or words[1].startswith("-") or user == "root":
        return
    try:
        command.run(["sudo", "-n", "-l", "-U", user, *words[1:], _ANY_MACHINE], timeout_seconds=_TIMEOUT_SECONDS)
    except CommandFailed:
        yield fail(
            "sudo",
            f"does not let {user} run {' '.join(words[1:])} for a machine: is the program there, and the rule of "
            "src/turku/storage/host_files/sudoers/turku-storage in /etc/sudoers.d?",
        )
    else:
        yield ok("sudo", f"lets {user} run {' '.join(words[1:])}")


def _writers(volume: Volume) -> Iterator[Fact]:
    """Yield a fact where other users may create or replace entries of the volume (threats N4)."""
    status = fs.status(volume.path)
    if status is None:
        # The report on the volumes says that it is absent.
        return
    subject, mode = f"volume {volume.name}", stat.S_IMODE(status.st_mode)
    fix = f"chmod go-w {volume.path}"
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        yield fail(
            subject,
            f"every user may rename and replace what lies in {volume.path} (mode {mode:04o}), machines' directories "
            f"among it; no catalog is kept there: {fix}",
        )
    elif mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield warn(
            subject,
            f"users besides its owner may make names in {volume.path} (mode {mode:04o}), where the storage makes "
            f"machines' directories: {fix}",
        )
    elif status.st_uid not in (0, os.geteuid()):
        yield warn(
            subject,
            f"{volume.path} belongs to user {status.st_uid}, who may rename and replace what lies in it: chown it",
        )
