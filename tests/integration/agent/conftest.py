"""A machine with our agent, beside a coordinator and storages of the existing system (tests/support/v1_server.py)."""

import getpass
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.processes import command_lines
from tests.support.sshd import Sshd
from tests.support.v1_server import V1Api, storage_line

PROGRAMS = Path(sys.executable).parent


class Machine:
    """The agent of one machine, run as installed commands."""

    def __init__(self, directory: Path, api: V1Api, sshd: Sshd) -> None:
        self.directory = directory
        self.api = api
        self.sshd = sshd
        self.config_dir = directory / "etc"
        self.var_dir = directory / "var dir 100%"
        self.volume = directory / "volume"
        self.volume.mkdir()
        self.prefix: list[str] = []
        """Words before each command, such as those that run it as another user."""
        for name in ("config.d", "sources.d"):
            (self.config_dir / name).mkdir(parents=True)
        self.configure()

    def configure(self, **keys: Any) -> None:
        """Write config.d anew. The storage is on this host, so that our rsyncd must not listen on its 127.0.0.1."""
        content = {
            "api_url": self.api.url,
            "api_auth": self.api.registration_secrets[0],
            "var_dir": str(self.var_dir),
            "rsyncd_local_address": "127.0.0.2",
            "unit_name": "examplemachine",
            "restore_path": str(self.directory / "restored"),
            **keys,
        }
        file = self.config_dir / "config.d/config.json"
        file.write_text(json.dumps(content))
        file.chmod(0o600)

    def source(self, name: str, path: Path | str, **options: Any) -> None:
        (self.config_dir / f"sources.d/{name}.json").write_text(json.dumps({name: {"path": str(path), **options}}))

    def register(self) -> None:
        """Run turku-update-config, and let the storages know the machine's key."""
        assert self.run("turku-update-config").returncode == 0
        lines = [storage_line(self.api, storage, self.volume / storage, self.uuid) for storage in self.api.storages]
        # All storages of these tests are one sshd. A key has one line, so that the first storage's is written.
        self.sshd.authorized_keys.write_text(lines[0])

    @property
    def uuid(self) -> str:
        (uuid,) = self.api.machines
        return uuid

    def start(self, program: str, *arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        argv = [*self.prefix, PROGRAMS / program, *arguments, "--config-dir", self.config_dir]
        return subprocess.Popen(argv, text=True, **options)

    def run(self, program: str, *arguments: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        with self.start(program, *arguments) as process:
            try:
                stdout, stderr = process.communicate(timeout=timeout)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def ping(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return self.run("turku-agent-ping", *arguments)

    def backed_up(self, name: str, storage: str = "primary") -> Path:
        return self.volume / storage / self.uuid / name

    def processes(self) -> list[str]:
        """Command lines of all processes that name this machine's directory: its ssh and rsyncd."""
        mark = str(self.var_dir).encode().replace(b"%", b"%%"), str(self.var_dir).encode()
        found = (line for line in command_lines().values() if any(text in line for text in mark))
        return [line.replace(b"\0", b" ").decode("utf-8", "replace") for line in found]


def wait_for(condition: Callable[[], Any], *, seconds: float = 60) -> Any:
    """Return the condition's value when it is true at last, and fail the test where it never is."""
    deadline = time.monotonic() + seconds
    while True:
        if result := condition():
            return result
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def end(process: subprocess.Popen[str]) -> None:
    """End a process of this test, whatever state it is in."""
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def api() -> Iterator[V1Api]:
    with V1Api() as api:
        yield api


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    authorized_keys = tmp_path / "authorized_keys"
    authorized_keys.touch()
    with Sshd(tmp_path / "sshd", authorized_keys=authorized_keys) as sshd:
        yield sshd


@pytest.fixture
def machine(tmp_path: Path, api: V1Api, sshd: Sshd) -> Machine:
    api.storages["primary"] = {
        "ssh_ping_host": "127.0.0.1",
        "ssh_ping_host_keys": sshd.host_keys,
        "ssh_ping_port": sshd.port,
        "ssh_ping_user": getpass.getuser(),
    }
    return Machine(tmp_path, api, sshd)
