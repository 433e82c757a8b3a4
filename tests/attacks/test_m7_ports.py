"""M7: the port that a machine names must be its own session's tunnel. No other service gets a byte."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.support.ordered_storage import OrderedStorage, ordered_storage
from tests.support.sshd import free_port

VICTIM = "1bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrderedStorage]:
    directory = tmp_path_factory.mktemp("ordered")
    (directory / "source").mkdir()
    with ordered_storage(directory, {"etc": directory / "source"}) as running:
        running.admit_with(VICTIM)
        yield running


def checkin(storage: OrderedStorage, port: Any) -> tuple[int, str]:
    """Return the end of a checkin that names this port and has no tunnel there."""
    credentials = {"username": storage.daemon.username, "password": storage.daemon.password}
    request = {"verbose": True, "action": "checkin", "port": port, "sources": {"etc": credentials}}
    asked = len(storage.api.of_call("storage_ping_checkin"))
    with storage.host.session(storage.key, request=request) as side:
        exit_code = side.wait()
        output = side.output
    # It ended before anything was asked or begun.
    assert len(storage.api.of_call("storage_ping_checkin")) == asked
    assert not storage.machine_dir.exists()
    return exit_code, output


@contextmanager
def service(address: str = "127.0.0.1") -> Iterator[socket.socket]:
    """One of the storage's own, which nobody connects to."""
    with socket.socket() as listener:
        listener.bind((address, 0))
        listener.listen()
        yield listener
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_m7_a_service_of_the_storage_gets_no_byte(storage: OrderedStorage, address: str) -> None:
    with service(address) as listener:
        exit_code, output = checkin(storage, listener.getsockname()[1])
    assert exit_code == 68
    assert "not this session's tunnel" in output


def test_m7_the_port_of_sshd_itself_is_refused(storage: OrderedStorage) -> None:
    assert checkin(storage, storage.host.sshd.port)[0] == 68


def test_m7_another_machines_tunnel_is_refused(storage: OrderedStorage) -> None:
    victims_key = storage.key.with_name("victim")
    port = free_port()
    forward = f"{port}:127.0.0.1:{storage.daemon.port}"
    request = {"verbose": True, "action": "restore", "port": port}
    with storage.host.session(victims_key, "-R", forward, request=request) as victim:
        victim.wait_for("Restore mode active")
        exit_code, output = checkin(storage, port)
    assert exit_code == 68
    assert "not this session's tunnel" in output


@pytest.mark.parametrize("port", [0, 1, 22, 1023, 65_536, -1, "22", None, True, 50_000.5, [50_000]])
def test_m7_a_value_that_is_no_port_of_a_tunnel_is_malformed(storage: OrderedStorage, port: Any) -> None:
    exit_code, output = checkin(storage, port)
    assert exit_code == 76
    assert "`port`" in output
