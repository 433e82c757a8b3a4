"""A machine's rsync daemon on a free loopback port (contract, "A backup session", step 2), ended with the block.

    with Rsyncd(directory, {"etc": path}) as daemon:
        daemon.port, daemon.username, daemon.password

``directory`` is made (0700) and holds configuration and secrets file. Modules are read-only and not listed.
"""

import os
import secrets
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from tests.support import rsync_programs
from tests.support.sshd import free_port

from turku.core import command

_START_TIMEOUT_SECONDS = 20.0


class Rsyncd:
    """A running daemon, as a context manager."""

    wrapper: Sequence[str] = ()
    """Words before the daemon's own command line."""

    def __init__(self, directory: Path, modules: Mapping[str, Path], *, read_only: bool = True) -> None:
        self.port = free_port()
        self.username = f"{secrets.token_hex(4)}-{secrets.token_hex(6)}"
        self.password = secrets.token_hex(15)
        self._directory = directory
        self._modules = dict(modules)
        self._read_only = read_only
        self._stack = ExitStack()

    def __enter__(self) -> "Rsyncd":
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        secrets_file = self._directory / "secrets"
        secrets_file.write_text(f"{self.username}:{self.password}\n")
        secrets_file.chmod(0o600)
        configuration = self._directory / "rsyncd.conf"
        configuration.write_text("\n".join(self._lines(secrets_file)) + "\n")
        with ExitStack() as stack:
            child = stack.enter_context(
                command.start(
                    [
                        *self.wrapper,
                        rsync_programs.chosen.machine,
                        "--daemon",
                        "--no-detach",
                        f"--config={configuration}",
                    ],
                    # It has nothing to tidy up, and would sleep 0.4 s first.
                    end_signal=signal.SIGKILL,
                )
            )
            deadline = time.monotonic() + _START_TIMEOUT_SECONDS
            while not self._answers():
                if child.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError("rsyncd does not answer:\n" + "\n".join(child.last_lines))
                time.sleep(0.01)
            assert rsync_programs.is_running(child.pid, rsync_programs.chosen.machine)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _lines(self, secrets_file: Path) -> list[str]:
        lines = [
            "address = 127.0.0.1",
            f"port = {self.port}",
            f"log file = {self._directory / 'rsyncd.log'}",
            "use chroot = no",
            "munge symlinks = no",
            "list = no",
        ]
        if os.geteuid() == 0:
            lines += ["uid = root", "gid = *"]
        for name, path in self._modules.items():
            lines += [
                f"[{name}]",
                f"path = {path}",
                f"read only = {'yes' if self._read_only else 'no'}",
                f"auth users = {self.username}",
                f"secrets file = {secrets_file}",
            ]
        return lines

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.settimeout(5)
                return connection.recv(8) == b"@RSYNCD:"
        except OSError:
            return False
