"""Fixtures of the attacks: a real coordinator (`turku-api serve` with its workers, on SQLite), and for the attacks on
a machine our agent with a storage whose sshd is real and whose forced command is the attacker's."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.integration.agent.conftest import Machine, api, end, machine, sshd
from tests.support.coordinator import Coordinator
from tests.support.hostile_storage import HostileStorage
from tests.support.http_cast import HttpCast

from turku.core import command

__all__ = ["api", "machine", "sshd"]

StartPing = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    """One that all attacks share. Its throttle is off: test_n2_guessing.py has a coordinator of its own."""
    state_dir = tmp_path_factory.mktemp("attacked") / "state"
    with Coordinator(state_dir, environment={"TURKU_BAD_CREDENTIALS_PER_MINUTE": "0"}) as running:
        yield running


@pytest.fixture
def cast(coordinator: Coordinator) -> HttpCast:
    """Alice, a machine, and Bob, her storage: this test's own."""
    return HttpCast.introduce(coordinator)


@pytest.fixture
def hostile(tmp_path: Path) -> HostileStorage:
    """The attacker on the machine's storage. Nothing is bound to it before a test writes its line."""
    return HostileStorage(tmp_path / "hostile")


@pytest.fixture
def victim(tmp_path: Path, machine: Machine) -> Path:
    """A directory beside what is written into that is to stay as it is, in which even the agent's user could write."""
    directory = tmp_path / "victim"
    directory.mkdir(mode=0o777)
    directory.chmod(0o777)
    (directory / "authorized_keys").write_text("mine")
    (directory / "authorized_keys").chmod(0o666)
    shutil.copytree(directory, tmp_path / "before")
    machine.source("etc", directory)
    return directory


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that every user can enter, as /var/lib is. Pytest's own are closed."""
    directory = Path(tempfile.mkdtemp(prefix="turku-n4-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def open_session(machine: Machine, hostile: HostileStorage) -> Iterator[StartPing]:
    """Register the machine and start a run of its agent, which opens a session with the attacker, ended in the end."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, behaviour: str = "hold", **options: object) -> subprocess.Popen[str]:
        machine.register()
        machine.sshd.authorized_keys.write_text(
            hostile.line((machine.var_dir / "ssh_key.pub").read_text().strip(), behaviour)
        )
        started.append(machine.start("turku-agent-ping", *arguments, **options))
        return started[-1]

    yield start
    for process in started:
        end(process)
        for stream in (process.stdout, process.stderr, process.stdin):
            if stream is not None:
                stream.close()


@dataclass(frozen=True)
class Device:
    """A disk, and the file that it is in."""

    number: int
    image: Path

    def is_untouched(self) -> bool:
        os.sync()
        return self.image.read_bytes() == bytes(2**20)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    """A disk of the machine's."""
    if os.geteuid() != 0:
        pytest.skip("only root has disks")
    image = tmp_path / "disk"
    image.write_bytes(bytes(2**20))
    [name] = command.run(["losetup", "--find", "--show", image], timeout_seconds=30).stdout.decode().split()
    try:
        yield Device(Path(name).stat().st_rdev, image)
    finally:
        command.run(["losetup", "--detach", name], timeout_seconds=30)
