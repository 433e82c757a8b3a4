"""The programs that the demo runs: Turku's own, beside this Python, and those of the system."""

import errno
import importlib.util
import os
import secrets
import shlex
import shutil
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from turku.core import command
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import CommandFailed
from turku.storage.rsync import version as rsync_version

DIRECTORY = Path(sys.executable).parent
"""Directory in which pip installs commands."""
TIMEOUT_SECONDS = 600.0
_START_TIMEOUT_SECONDS = 60.0
_LOWEST_PORT, _EPHEMERAL_PORT = 10_000, 32_768

_DEBIAN_PACKAGES = {"rsync": "rsync", "ssh": "openssh-client", "ssh-keygen": "openssh-client", "sshd": "openssh-server"}
# On Debian, sshd is not in the PATH of ordinary users.
_SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def find(name: str) -> str | None:
    """Return the path of a system program, also outside the PATH of ordinary users, or None."""
    path = os.pathsep.join((command.environment()["PATH"], *_SYSTEM_DIRECTORIES))
    return shutil.which(name, path=path)


def require() -> None:
    """Raise CommandFailed with missing programs and their packages, or for an rsync that is too old."""
    missing = [name for name in _DEBIAN_PACKAGES if find(name) is None]
    if missing:
        packages = " ".join(sorted({_DEBIAN_PACKAGES[name] for name in missing}))
        raise CommandFailed(
            f"not installed: {', '.join(missing)}",
            hint=f"on Debian, as root: apt-get install --no-install-recommends {packages}",
        )
    version = rsync_version.installed(["rsync"])
    if version is not None and version.is_old:
        raise CommandFailed(
            f"rsync {version} is installed: a storage refuses one older than {rsync_version.MINIMUM}",
            details=rsync_version.REASON,
            hint="on Debian 12 or 13, as root: apt-get update && apt-get install rsync",
        )
    if importlib.util.find_spec("django") is None:
        raise CommandFailed(
            "the coordinator is not installed beside this program", hint="run: pip install 'turku[demo]'"
        )


def versions() -> str:
    """Return the versions of rsync and ssh, for people."""
    ssh = command.run(["ssh", "-V"], timeout_seconds=TIMEOUT_SECONDS, check=False)
    # ssh prints its version to standard error.
    told = " ".join(ssh.last_lines).partition(",")[0]
    return f"rsync {rsync_version.installed(['rsync']) or 'of an unknown version'}, {told or 'ssh'}"


def free_port() -> int:
    """Return a loopback port on which nobody listens.

    It is below the ephemeral ports (32,768 and up), which the next connection of any program could take before it is
    used. It is random, so that several programs that ask at the same moment get different ports.
    """
    while True:
        port = _LOWEST_PORT + secrets.randbelow(_EPHEMERAL_PORT - _LOWEST_PORT)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return port


def command_line(name: str, *arguments: str) -> str:
    """Return one of Turku's commands in a form that can be pasted into a shell."""
    return shlex.join([str(DIRECTORY / name), *arguments])


def run(
    name: str,
    *arguments: str | Path,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    expected_codes: Sequence[int] = (0,),
) -> command.CompletedProgram:
    """Run one of Turku's commands and return its result.

    Raises CommandFailed, with the last lines it printed, if it ends with an unexpected exit code.
    """
    completed = command.run(
        [DIRECTORY / name, *arguments],
        timeout_seconds=timeout_seconds,
        capture_limit_bytes=64 * 1024 * 1024,
        extra_environment=environment,
        check=False,
    )
    if completed.exit_code not in expected_codes:
        printed = [*completed.stdout.decode("utf-8", "replace").splitlines(), *completed.last_lines]
        raise CommandFailed(
            f"{name} ended with exit code {completed.exit_code}", details="\n".join(printed[-command.KEPT_LINES :])
        )
    return completed


class LocalServer(ABC):
    """A server on a free loopback port. A context manager that ends it."""

    def __init__(self) -> None:
        self.port = free_port()
        self._stack = ExitStack()
        self._child: command.Child | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """Process id of the server, while it runs."""
        return self._child.pid if self._child else None

    @property
    def last_lines(self) -> tuple[str, ...]:
        """Last lines of the server's log."""
        return self._child.last_lines if self._child else ()

    @abstractmethod
    def start(self) -> None:
        """Start serving and wait until it answers. Raises CommandFailed."""

    @abstractmethod
    def _answers(self) -> bool:
        """Return True when the server answers."""

    def _run(self, argv: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        with ExitStack() as stack:
            child = stack.enter_context(command.start(argv, extra_environment=environment))
            deadline = SYSTEM_CLOCK.monotonic_seconds() + _START_TIMEOUT_SECONDS
            while not self._answers():
                if child.poll() is not None:
                    child.wait(1)  # for its last lines to be read
                if child.poll() is not None or SYSTEM_CLOCK.monotonic_seconds() > deadline:
                    raise CommandFailed(
                        f"{argv[0]} does not answer on 127.0.0.1:{self.port}", details="\n".join(child.last_lines)
                    )
                SYSTEM_CLOCK.sleep(0.02)
            self._child = child
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """End the server."""
        self._stack.close()
