"""M7: further attacks of a machine with the port it names: half of it, another's with the passwords, input without end.

The plain cases of ports are in test_m7_ports.py, malformed requests in test_m7_malformed_requests.py.
"""

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.support import host_snippets
from tests.support.hostile_api import HostileApi
from tests.support.ordered_storage import OrderedStorage, ordered_storage
from tests.support.sshd import free_port
from tests.support.storage_host import PROGRAMS, AgentSide, StorageHost

from turku.protocol.session_framing import SESSION_REQUEST_TIMEOUT_SECONDS

VICTIM = "1bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
MEMORY_LIMIT_BYTES = 100 * 1024 * 1024
# Runs the real forced command and then notes the most memory that it used.
MEASURED = """\
import pathlib, resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
pathlib.Path(sys.argv[1]).write_text(str(most))
sys.exit(code)
"""


class Canary:
    """A service of the storage on loopback: notes who came and what it was sent."""

    def __init__(self, listener: socket.socket) -> None:
        self.port = listener.getsockname()[1]
        self.visitors = 0
        self.received = b""
        self._listener = listener
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                visitor, _ = self._listener.accept()
                self.visitors += 1
                with visitor, suppress(OSError):
                    visitor.settimeout(5)
                    while chunk := visitor.recv(4096):
                        self.received += chunk


@contextmanager
def canary(port: int = 0) -> Iterator[Canary]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        yield Canary(listener)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrderedStorage]:
    directory = tmp_path_factory.mktemp("ordered")
    (directory / "source").mkdir()
    (directory / "source" / "file").write_text("the victim's")
    with ordered_storage(directory, {"etc": directory / "source"}) as running:
        running.admit_with(VICTIM)
        yield running


def request(storage: OrderedStorage, port: int, action: str = "checkin") -> dict[str, Any]:
    credentials = {"username": storage.daemon.username, "password": storage.daemon.password}
    return {"verbose": True, "action": action, "port": port, "sources": {"etc": credentials}}


@contextmanager
def session(storage: OrderedStorage, named: int, *, tunnel: int, action: str = "checkin") -> Iterator[AgentSide]:
    """A session that names one port and has its tunnel at another, or at the same."""
    forward = f"{tunnel}:127.0.0.1:{storage.daemon.port}"
    with storage.host.session(storage.key, "-R", forward, request=request(storage, named, action)) as side:
        yield side


def test_m7_a_tunnel_of_ones_own_does_not_vouch_for_another_machines(storage: OrderedStorage) -> None:
    victims_port = free_port()
    forward = f"{victims_port}:127.0.0.1:{storage.daemon.port}"
    restore = request(storage, victims_port, "restore")
    with storage.host.session(storage.key.with_name("victim"), "-R", forward, request=restore) as victim:
        victim.wait_for("Restore mode active")
        # Both sessions at once, and the thief knows the victim's one-time passwords: only the port stops it.
        with session(storage, victims_port, tunnel=free_port()) as thief:
            assert thief.wait() == 68
            assert f"port {victims_port} is not this session's tunnel" in thief.output
        assert victim.child.poll() is None
    assert not storage.machine_dir.exists()


@pytest.mark.parametrize("action", ["checkin", "restore"])
def test_m7_nor_for_a_service_of_the_storage(storage: OrderedStorage, action: str) -> None:
    with canary() as service:
        with session(storage, service.port, tunnel=free_port(), action=action) as side:
            assert side.wait() == 68
        assert (service.visitors, service.received) == (0, b"")


def half_taken() -> int:
    """Return a port that is free on ::1. The caller's service takes it on 127.0.0.1."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this host has no ::1")
        port: int = probe.getsockname()[1]
        return port


def test_m7_a_port_that_sshd_could_take_by_half_only_is_refused(storage: OrderedStorage) -> None:
    with canary(half_taken()) as service:
        with session(storage, service.port, tunnel=service.port) as side:
            # sshd says that it forwards the port: it does, on ::1. rsync would have gone to the other address.
            assert side.wait() == 68
            assert f"port {service.port} is not this session's tunnel" in side.output
        assert (service.visitors, service.received) == (0, b"")


def test_m7_with_the_snippets_address_family_sshd_itself_refuses_it(tmp_path: Path) -> None:
    [line] = [line.lstrip("#") for line in host_snippets.sshd().splitlines() if line.startswith("#AddressFamily")]
    with (
        HostileApi() as api,
        StorageHost(tmp_path / "storage", api_url=api.url, sshd_lines=[line]) as storage,
        canary(half_taken()) as service,
    ):
        key = storage.sshd.new_key("machine")
        storage.authorized_keys.parent.mkdir(parents=True, exist_ok=True)
        storage.authorized_keys.write_text(Path(f"{key}.pub").read_text())
        with storage.session(key, "-R", f"{service.port}:127.0.0.1:9") as side:
            assert side.wait() == 255
            assert "remote port forwarding failed" in side.output
        assert service.visitors == 0


@pytest.fixture
def measured(storage: OrderedStorage, tmp_path: Path) -> Iterator[Path]:
    """Yield the file with the peak memory of the forced command at its end."""
    script, most = tmp_path / "measured.py", tmp_path / "most"
    script.write_text(MEASURED)
    real = str(PROGRAMS / "turku-storage-ping")
    storage.host.write_configuration(authorized_keys_command=f"{sys.executable} {script} {most} {real}")
    storage.host.update_config()
    yield most
    storage.host.write_configuration(authorized_keys_command=real)
    storage.host.update_config()


def test_m7_ten_megabytes_of_json_take_no_more_memory_than_any_request(storage: OrderedStorage, measured: Path) -> None:
    begin = time.monotonic()
    with storage.host.session(storage.key) as side:
        start = json.dumps(request(storage, 50000))[:-1].encode() + b', "more": "'
        with suppress(BrokenPipeError):
            side.send(start + b"x" * 10_000_000)
        assert side.wait(20) == 76
        assert "larger than" in side.output
    assert time.monotonic() - begin < 20
    assert int(measured.read_text()) < MEMORY_LIMIT_BYTES


def test_m7_input_that_drips_for_ever_is_ended_by_the_clock(storage: OrderedStorage, measured: Path) -> None:
    begin = time.monotonic()
    with storage.host.session(storage.key) as side:
        # No line break, and always one byte more.
        while side.child.poll() is None and time.monotonic() - begin < SESSION_REQUEST_TIMEOUT_SECONDS + 20:
            with suppress(BrokenPipeError):
                side.send(b"[")
            time.sleep(0.2)
        assert side.wait(5) == 76
        assert "did not end within" in side.output
    assert SESSION_REQUEST_TIMEOUT_SECONDS - 5 < time.monotonic() - begin < SESSION_REQUEST_TIMEOUT_SECONDS + 15
    assert int(measured.read_text()) < MEMORY_LIMIT_BYTES


def test_m7_an_agent_that_goes_on_sending_after_its_request_is_taken_for_gone(storage: OrderedStorage) -> None:
    port, begin, sent = free_port(), time.monotonic(), 0
    with session(storage, port, tunnel=port, action="restore") as side:
        side.wait_for("Restore mode active")
        with suppress(BrokenPipeError):
            while side.child.poll() is None and time.monotonic() - begin < 30:
                side.send(b"x" * 65536)
                sent += 65536
        assert side.wait(10) == 0
    assert time.monotonic() - begin < 30
    assert sent < 64 * 1024 * 1024
