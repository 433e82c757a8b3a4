"""The seven calls over HTTP, by a client written from the contract alone, on both databases."""

import json
import socket
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from tests.support.coordinator import Coordinator
from tests.support.v1_client import Post, Refused, V1Machine, V1Storage


@pytest.fixture
def post(coordinator: Coordinator) -> Post:
    def send(call: str, message: Any) -> tuple[int, Any]:
        response = coordinator.call(call, message)
        assert response.headers["Content-Type"] == "application/json"
        return response.status_code, response.json()

    return send


@pytest.fixture
def storage(coordinator: Coordinator, post: Post) -> Iterator[V1Storage]:
    auth = coordinator.create_auth("storage_reg", name=f"storages {uuid.uuid4()}")
    coordinator.deactivate_unassigned_machines()
    # The only one with space worth speaking of: it gets this test's machines.
    storage = V1Storage(post, auth=auth, name=f"storage-{uuid.uuid4().hex[:8]}", space_available=1e9)
    storage.update_config()
    yield storage
    # It takes no machines of other tests.
    storage.update_config(published=False)


@pytest.fixture
def machine(coordinator: Coordinator, post: Post, storage: V1Storage) -> V1Machine:
    name = f"machines {uuid.uuid4()}"
    secret = coordinator.create_auth("machine_reg", name=name)
    machine = V1Machine(post, auth={"name": name, "secret": secret})
    machine.update_config({"etc": {"path": "/etc"}, "home": {"path": "/home", "odd": {"kept": [1, None]}}})
    return machine


def test_a_backup_goes_its_way_from_registration_to_report(machine: V1Machine, storage: V1Storage) -> None:
    assert set(storage.update_config()) == {machine.uuid}
    order = machine.due()["etc"]
    assert order["storage"]["name"] == storage.name
    assert storage.due(machine.uuid)["etc"] == order
    assert storage.succeeded(machine.uuid, "etc") == {}
    assert storage.failed(machine.uuid, "home") == {}
    assert machine.due() == {}
    assert storage.due(machine.uuid) == {}
    assert set(machine.restorable()) == {"etc", "home"}


def test_refusals_are_json_with_the_contracts_status(coordinator: Coordinator, machine: V1Machine) -> None:
    assert coordinator.call("agent_ping_checkin", {}).status_code == 400
    with pytest.raises(Refused) as caught:
        V1Machine(machine.post, uuid=machine.uuid).due()
    assert caught.value.status == 403
    assert coordinator.call("no_such_call", {}).status_code == 404
    assert requests.get(f"{coordinator.url}/health", timeout=60).status_code == 405
    assert coordinator.call("health/", {}).status_code == 200


def test_values_that_postgresql_cannot_store_are_refused_by_field(machine: V1Machine) -> None:
    for sources in ({"etc": {"path": "/a\0b"}}, {"etc": {"path": "/etc", "odd": ["\0"]}}, {"e\0": {"path": "/etc"}}):
        with pytest.raises(Refused) as caught:
            machine.update_config(sources)
        assert caught.value.status == 400
        assert "machine.sources" in caught.value.sentence


def test_extreme_lawful_values_are_stored(machine: V1Machine, storage: V1Storage) -> None:
    odd = {"big": 2**63, "small": -(2**63), "float": 1e300, "text": "\U0001f980 ü", "empty": [{}, [], "", None]}
    machine.update_config({"etc": {"path": "/etc", **odd, "comment": "ü" * 200}})
    storage.update_config(space_total=1e15, space_available=1.5)
    storage.report(machine.uuid, {"etc": {"success": True, "summary": "x" * 65_536, "time_begin": 0, "time_end": 1.0}})


def test_a_large_body_is_refused_before_it_is_read(coordinator: Coordinator) -> None:
    response = requests.post(f"{coordinator.url}/health", data=b"x" * (5 * 1024 * 1024), timeout=30)
    assert response.status_code == 400
    assert "larger than" in response.json()["error"]
    announced = b"POST /v1/health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
    with socket.create_connection(("127.0.0.1", coordinator.port), timeout=60) as connection:
        connection.sendall(announced)
        assert connection.recv(4096).startswith(b"HTTP/1.1 400")


def test_a_broken_length_or_chunked_body_is_no_server_error(coordinator: Coordinator) -> None:
    chunked = requests.post(f"{coordinator.url}/health", data=iter([b"{", b"}"]), timeout=60)
    assert chunked.status_code in (200, 400)
    for head in (b"Content-Length: -1", b"Content-Length: x", b"Content-Length: 2\r\nContent-Length: 3"):
        with socket.create_connection(("127.0.0.1", coordinator.port), timeout=60) as connection:
            connection.sendall(b"POST /v1/health HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n\r\n{}")
            assert connection.recv(4096)[9:10] == b"4"


def test_bad_credentials_reach_no_log(coordinator: Coordinator, machine: V1Machine) -> None:
    with pytest.raises(Refused):
        V1Machine(machine.post, uuid=machine.uuid, secret="hunter2-hunter2-hunter2").due()
    assert "hunter2" not in "\n".join(coordinator.last_lines)
    assert "Traceback" not in "\n".join(coordinator.last_lines)


def test_the_admin_site_and_its_styles_are_served(coordinator: Coordinator) -> None:
    base = coordinator.url.removesuffix("/v1")
    page = requests.get(f"{base}/", timeout=60)
    assert page.status_code == 200
    assert "Turku" in page.text
    for path in ("admin/css/base.css", "turku/marks.css"):
        assert requests.get(f"{base}/static/{path}", timeout=60).status_code == 200


def test_the_health_check_reads_the_same_database(coordinator: Coordinator, machine: V1Machine) -> None:
    assert "machine" in coordinator.manage("health", check=False)
    assert json.loads(coordinator.call("health", {}).text)["counts"]["machine"] >= 1
