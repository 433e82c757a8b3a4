"""A minimal Debian system of one's own, whose root a program runs in, and that boots by its own /sbin/init.

    with running_system(directory) as system:
        system.run("turku-update-config")     our agent in it, with / for its root
    with booted(root) as state: ...           the state that its systemd reaches in a container

The system is made once, by debootstrap, and kept in ``.cache``. What these lack the tests are skipped without.
"""

import fcntl
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from tests.support import loop_volume

import turku
from turku.core import command, durable
from turku.core.command import CompletedProgram
from turku.errors import CommandFailed

CACHE = Path(__file__).resolve().parents[2] / ".cache"
_FALLBACK_RELEASE = "bookworm"
_PACKAGES = ("systemd-sysv", "dbus", "python3", "rsync", "openssh-client", "attr", "acl")
_MAKING_SECONDS = 600.0
_TIMEOUT_SECONDS = 120.0
_BOOT_SECONDS = 120.0
_CODE = Path("/opt/turku")
_ENTRIES = {"turku-agent": "entry", "turku-agent-ping": "ping_entry", "turku-update-config": "update_config_entry"}
_DONE = ("running", "degraded")


def require() -> None:
    """Skip the test, with the reason, where it cannot run."""
    if os.geteuid() != 0:
        pytest.skip("only root can make and boot a system")
    for program, package in (("debootstrap", "debootstrap"), ("systemd-nspawn", "systemd-container")):
        if shutil.which(program, path=_path()) is None:
            pytest.skip(f"{program} is not installed (Debian's package {package})")


def base_system() -> Path:
    """Return the system that all others are copies of, and make it if there is none. The test is skipped without."""
    require()
    CACHE.mkdir(exist_ok=True)
    base = CACHE / f"whole-system-{_release()}"
    descriptor = os.open(CACHE / "whole-system.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # One of several workers makes it.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not base.exists():
            unfinished = base.with_name(f"{base.name}.unfinished")
            command.run(["rm", "-rf", "--one-file-system", unfinished], timeout_seconds=_TIMEOUT_SECONDS)
            _debootstrap(unfinished)
            unfinished.rename(base)
    finally:
        os.close(descriptor)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not (base / "usr/bin" / version).exists():
        pytest.skip(f"the system's Python is not {version}, for which this one's libraries are built")
    return base


def _release() -> str:
    """Return the release of this Debian, whose Python the libraries of this checkout are built for."""
    with suppress(OSError):
        release = platform.freedesktop_os_release()
        if release.get("ID") == "debian" and release.get("VERSION_CODENAME"):
            return release["VERSION_CODENAME"]
    return _FALLBACK_RELEASE


def _debootstrap(directory: Path) -> None:
    argv = ["debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", _release(), str(directory)]
    try:
        command.run(argv, timeout_seconds=_MAKING_SECONDS, extra_environment={"PATH": _path()})
    except CommandFailed as error:
        pytest.skip(f"debootstrap made no system: {error.message} {error.details[-300:]}")


def _path() -> str:
    return f"{command.environment()['PATH']}:/usr/sbin:/sbin"


@dataclass
class RunningSystem:
    """A system whose root, with /proc, /sys, /dev and /run mounted in it as in any other, programs of ours run in."""

    root: Path

    def run(self, program: str, *arguments: str, codes: Sequence[int] = (0,)) -> CompletedProgram:
        """Run one of the agent's programs in it. Raises CommandFailed for another exit code."""
        script = f"import sys; sys.argv[0] = {program!r}; from turku.agent.cli import {_ENTRIES[program]} as run; run()"
        completed = self.shell(*("/usr/bin/python3", "-c", script, *arguments), codes=range(256))
        if completed.exit_code not in codes:
            said = "\n".join((completed.stdout.decode("utf-8", "replace"), *completed.last_lines))
            raise CommandFailed(f"{program} ended with exit code {completed.exit_code}", details=said)
        return completed

    def shell(self, *argv: str, codes: Sequence[int] = (0,)) -> CompletedProgram:
        """Run any program in it."""
        completed = command.run(
            ["chroot", self.root, *argv],
            timeout_seconds=10 * _TIMEOUT_SECONDS,
            extra_environment={"PYTHONPATH": f"{_CODE}/src:{_CODE}/libraries", "PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
        )
        assert completed.exit_code in codes, completed
        return completed


@contextmanager
def running_system(root: Path) -> Iterator[RunningSystem]:
    """Copy the base system to ``root``, and mount the file systems of a running one, for the block."""
    base = base_system()
    loop_volume.enter_own_mount_namespace()
    command.run(["cp", "-a", base, root], timeout_seconds=_TIMEOUT_SECONDS)
    for place in (_CODE / "src", _CODE / "libraries"):
        (root / place.relative_to("/")).mkdir(parents=True)
    libraries = Path(msgspec.__file__).parents[1]
    mounts: list[tuple[list[str | Path], Path]] = [
        (["--bind", root], root),
        (["-t", "proc", "proc"], root / "proc"),
        (["--rbind", "/sys"], root / "sys"),
        (["--rbind", "/dev"], root / "dev"),
        (["-t", "tmpfs", "tmpfs"], root / "run"),
        (["-t", "tmpfs", "tmpfs"], root / "tmp"),
        (["--bind", Path(turku.__file__).parents[1]], root / "opt/turku/src"),
        (["--bind", libraries], root / "opt/turku/libraries"),
    ]
    with ExitStack() as stack:
        for options, place in mounts:
            command.run(["mount", *options, place], timeout_seconds=_TIMEOUT_SECONDS)
            stack.callback(command.run, ["umount", "--recursive", "--lazy", place], timeout_seconds=_TIMEOUT_SECONDS)
            if place.is_relative_to(root / "opt/turku"):
                # Whatever a restore does there, it is not done to this checkout.
                command.run(["mount", "-o", "remount,bind,ro", place], timeout_seconds=_TIMEOUT_SECONDS)
        yield RunningSystem(root)


@contextmanager
def booted(root: Path) -> Iterator[tuple[str, Path]]:
    """Boot the system by its own init in a container, yield its state and /proc/PID of the init, and shut it down.

    Raises AssertionError where it does not come up or does not go down.
    """
    require()
    is_unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    with command.start(
        [
            *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network", "--console=pipe"),
            *(f"--directory={root}", "--boot"),
        ],
        extra_environment={"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1" if is_unified else "0"},
        end_signal=signal.SIGTERM,
    ) as container:
        state, init = _wait_until_up(container)
        yield state, Path(f"/proc/{init}")
        _inside(init, "systemctl", "--no-block", "poweroff")
        assert container.wait(_BOOT_SECONDS) == 0, container.last_lines


def _wait_until_up(container: command.Child) -> tuple[str, int]:
    deadline = time.monotonic() + _BOOT_SECONDS
    state = "nothing"
    while time.monotonic() < deadline and container.poll() is None:
        for init in _children(container.pid):
            state = _inside(init, "systemctl", "is-system-running")
            if state in _DONE:
                return state, init
        time.sleep(0.5)
    raise AssertionError(f"the system does not come up: {state}; {container.last_lines}")


def _children(process: int) -> list[int]:
    with suppress(OSError):
        return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def _inside(init: int, *argv: str) -> str:
    """Return the last line that a program says in the container."""
    completed = command.run(
        ["nsenter", f"--target={init}", "--mount", "--uts", "--ipc", "--net", "--pid", "--", *argv],
        timeout_seconds=_TIMEOUT_SECONDS,
        check=False,
    )
    said = completed.stdout.decode("utf-8", "replace").split()
    return said[-1] if said else " ".join(completed.last_lines[-1:])


def failed_units(init: Path) -> str:
    """Return what systemd says of the units that failed, for a message."""
    return _inside(int(init.name), "systemctl", "--failed", "--no-legend", "--plain", "--no-pager")


def write_agent(root: Path, configuration: object, sources: object) -> None:
    """Write the agent's configuration where a system has it."""
    for name, content in (("config.d", configuration), ("sources.d", sources)):
        directory = root / "etc/turku-agent" / name
        directory.mkdir(parents=True, exist_ok=True)
        durable.write_json(directory / "whole.json", content)
