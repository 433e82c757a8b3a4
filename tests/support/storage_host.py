"""A storage as it is installed: its configuration, a volume, an sshd with the authorized_keys that Turku writes.

with StorageHost(directory, api_url=coordinator.url, api_auth=SECRET) as storage:
    storage.update_config()             the output of turku-storage-update-config, a command.Completed
    storage.write_configuration(k=v)    changes keys of the configuration, None removes one
    storage.volume                      the Path of its one volume
    storage.sshd, storage.authorized_keys, storage.lines
    storage.log                         the text of its log file
    with storage.session(key, "-R", "1:127.0.0.1:1", request={...}) as side:
        side.wait(), side.output        an ssh that plays the agent
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support import rsync_programs
from tests.support.sshd import Sshd

from turku.core import command

PROGRAMS = Path(sys.executable).parent


class StorageHost:
    """A storage on this machine, as a context manager."""

    def __init__(
        self,
        directory: Path,
        *,
        api_url: str,
        api_auth: str | None = None,
        name: str = "primary",
        sshd_lines: Sequence[str] = (),
        **keys: Any,
    ) -> None:
        self.directory = directory
        self.config_dir = directory / "etc"
        self.var_dir = directory / "var"
        self.volume = directory / "volume"
        self.authorized_keys = directory / "ssh" / "authorized_keys"
        self.log_path = directory / "log" / "storage.log"
        self.name = name
        self._stack = ExitStack()
        self.sshd = Sshd(directory / "sshd", authorized_keys=self.authorized_keys, extra_lines=sshd_lines)
        self.keys: dict[str, Any] = {
            "api_url": api_url,
            "name": name,
            "volumes": {"data": {"path": str(self.volume), "accept_new_high_water_pct": 100}},
            "ssh_ping_host": "127.0.0.1",
            "ssh_ping_port": self.sshd.port,
            "ssh_ping_user": self.sshd.user,
            "authorized_keys_file": str(self.authorized_keys),
            "authorized_keys_command": str(PROGRAMS / "turku-storage-ping"),
            "var_dir": str(self.var_dir),
            "log_file": str(self.log_path),
            "low_water_free_pct": 0,
            **({"api_auth": api_auth} if api_auth else {}),
            **keys,
        }

    def __enter__(self) -> "StorageHost":
        self.volume.mkdir(mode=0o700, parents=True)
        self.directory.chmod(0o700)
        with ExitStack() as stack:
            stack.enter_context(self.sshd)
            self.write_configuration(ssh_ping_host_keys=self.sshd.host_keys)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    @property
    def lines(self) -> list[str]:
        """The lines of authorized_keys that are no comments."""
        return [line for line in self.authorized_keys.read_text().splitlines() if line and not line.startswith("#")]

    def write_configuration(self, **keys: Any) -> None:
        """Write the configuration with these keys changed. None removes one."""
        self.keys = {key: value for key, value in {**self.keys, **keys}.items() if value is not None}
        path = self.config_dir / "config.d" / "config.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rsync_programs.of_storage(self.keys)))

    def run(self, program: str, *arguments: str, check: bool = True, input_bytes: bytes | None = None) -> Any:
        """A storage program with this storage's configuration, to its end."""
        return command.run(
            [PROGRAMS / program, *arguments, "--config-dir", self.config_dir],
            timeout_seconds=60,
            input_bytes=input_bytes,
            check=check,
        )

    def update_config(self, *arguments: str, check: bool = True) -> command.CompletedProgram:
        completed: command.CompletedProgram = self.run("turku-storage-update-config", *arguments, check=check)
        return completed

    @contextmanager
    def session(
        self, key: Path, *options: str, request: bytes | Mapping[str, Any] | None = None
    ) -> "Iterator[AgentSide]":
        """Yield an ssh that plays the agent, its request already sent, for the block."""
        argv = self.sshd.client(key, "-T", "-o", "ExitOnForwardFailure=yes", *options, command=("turku-ping-remote",))
        with command.start(argv, stdin=True) as child:
            side = AgentSide(child)
            if request is not None:
                side.send(request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n.\n")
            yield side


class AgentSide:
    """The agent's end of a session: ssh with its standard input open."""

    def __init__(self, child: command.Child) -> None:
        self.child = child

    @property
    def output(self) -> str:
        """Return the last lines of the output, and all of them once the session has ended."""
        if self.child.poll() is not None:
            self.child.wait(0)
        return "\n".join(self.child.last_lines)

    def send(self, content: bytes) -> None:
        self.child.stdin.write(content)
        self.child.stdin.flush()

    def end_input(self) -> None:
        self.child.stdin.close()

    def wait(self, timeout_seconds: float = 30) -> int:
        """The exit code of the session."""
        return self.child.wait(timeout_seconds)

    def wait_for(self, text: str, timeout_seconds: float = 60) -> None:
        """Return when ``text`` came back."""
        deadline = time.monotonic() + timeout_seconds
        while text not in self.output:
            assert time.monotonic() < deadline, f"{text!r} did not come:\n{self.output}"
            if self.child.poll() is not None:
                assert text in self.output, f"ended without {text!r}:\n{self.output}"
            time.sleep(0.02)
