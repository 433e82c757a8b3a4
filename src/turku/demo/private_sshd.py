"""A private sshd on a free loopback port, as any user, with all its files in one directory."""

import os
import pwd
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from turku.core import command, durable
from turku.core.clock import SYSTEM_CLOCK
from turku.demo import programs
from turku.errors import CommandFailed

_SESSION_GRACE_SECONDS = 5.0


class PrivateSshd(programs.LocalServer):
    """A running sshd. A context manager that ends it with its sessions.

    It reads ``authorized_keys`` at each login, so the file may be written at any time. ``path`` is the PATH of forced
    commands. As root, it creates /run/sshd if that is missing, because sshd needs it.
    """

    def __init__(
        self, directory: Path, *, authorized_keys: Path, extra_lines: Sequence[str] = (), path: str | None = None
    ) -> None:
        super().__init__()
        self.directory = directory
        self.authorized_keys = authorized_keys
        self.user = user_name()
        self._extra_lines = tuple(extra_lines)
        self._path = path or f"{programs.DIRECTORY}:{command.environment()['PATH']}"

    @property
    def host_key(self) -> Path:
        """Path of the public host key."""
        return self.directory / "host_key.pub"

    def start(self) -> None:
        """Write the files and start serving. Raises CommandFailed."""
        durable.make_private_directory(self.directory)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        generate_key(self.directory / "host_key")
        configuration = self.directory / "sshd_config"
        durable.write_text(configuration, "\n".join((*self._extra_lines, *self._lines())) + "\n")
        # sshd starts itself again for each connection, and needs its absolute path for that.
        program = programs.find("sshd") or "/usr/sbin/sshd"
        self._run([program, "-D", "-e", "-f", configuration])

    def stop(self) -> None:
        """End sshd with its sessions."""
        # Each connection is a session of its own, outside the process group of the listener.
        sessions = _descendants(self._child.pid) if self._child else []
        super().stop()
        _end(sessions)

    def _lines(self) -> tuple[str, ...]:
        # sshd takes the first value of a keyword, so the caller's lines win.
        return (
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f'HostKey "{self.directory / "host_key"}"',
            "PidFile none",
            # A % would be one of sshd's tokens in this keyword only.
            'AuthorizedKeysFile "{}"'.format(str(self.authorized_keys).replace("%", "%%")),
            # A directory above may be /tmp, which StrictModes refuses. The last one is private.
            "StrictModes no",
            f"UsePAM {'yes' if _is_locked(self.user) else 'no'}",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "MaxStartups 100",
            "LogLevel VERBOSE",
            # The shell would read the account's start-up files at each session, which takes time.
            f'SetEnv "PATH={self._path}" "HOME={self.directory}"',
            "Subsystem sftp internal-sftp",
        )

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.settimeout(5)
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


def user_name() -> str:
    """Return the name of the present user. Raises CommandFailed if sshd could not let that user in."""
    try:
        account = pwd.getpwuid(os.geteuid())
    except KeyError:
        raise CommandFailed(
            f"the user number {os.geteuid()} has no account on this system, so no sshd can let it in"
        ) from None
    if Path(account.pw_shell).name in ("nologin", "false"):
        raise CommandFailed(
            f"the account {account.pw_name} has {account.pw_shell} for a shell: sshd cannot run a command for it",
            hint="run this as a user who can log in",
        )
    return account.pw_name


def _is_locked(user: str) -> bool:
    """Return True when the account's password is locked, which sshd takes for a locked account unless PAM decides.

    Only root can see that, and only root's sshd checks it.
    """
    try:
        entries = Path("/etc/shadow").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(entry.startswith(f"{user}:!") for entry in entries)


def generate_key(path: Path) -> None:
    """Create an ed25519 key pair at ``path`` unless there is one."""
    if not path.exists():
        command.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "turku", "-f", path], timeout_seconds=30)


def _descendants(process: int) -> list[int]:
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [number for child in map(int, children) for number in (child, *_descendants(child))]


def _end(processes: list[int]) -> None:
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        deadline = SYSTEM_CLOCK.monotonic_seconds() + _SESSION_GRACE_SECONDS
        for process in processes:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal_number)
        while processes and SYSTEM_CLOCK.monotonic_seconds() < deadline:
            processes = [process for process in processes if _runs(process)]
            SYSTEM_CLOCK.sleep(0.02)


def _runs(process: int) -> bool:
    try:
        # The state comes after the program's name, which may contain blanks and parentheses.
        state = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")
