"""S1: while a coordinator takes what storages know, a compromised storage gets no machine of another one."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.coordinator import Coordinator
from tests.support.http_cast import HttpCast, status_of
from tests.support.v1_client import V1Storage, ask


@pytest.fixture
def mallory(cast: HttpCast) -> V1Storage:
    storage = cast.storage()
    storage.update_config()
    return storage


@pytest.fixture
def recovering(coordinator: Coordinator) -> Iterator[Coordinator]:
    """The coordinator, whose operator lets storages report."""
    coordinator.manage("recover", "--from-storages", "--hours", "1")
    yield coordinator
    coordinator.manage("recover", "--end")


def tell(storage: V1Storage, machine: str, **known: Any) -> str:
    """Report the machine, and return what became of it."""
    message = {"storage": {"name": storage.name, "secret": storage.secret}, "machines": {machine: known}}
    answer = ask(storage.post, "../v2/storage_known_machines", message)
    return str(answer["machines"][machine]["outcome"])


def test_it_reports_nothing_while_no_operator_allows_it(mallory: V1Storage) -> None:
    assert status_of(lambda: tell(mallory, str(uuid.uuid4()))) == 403


def test_it_takes_over_no_machine_that_is_there(recovering: Coordinator, cast: HttpCast, mallory: V1Storage) -> None:
    key = recovering.key(cast.alice.uuid)
    before = recovering.sql("SELECT * FROM fleet_machine WHERE uuid = ?", key)
    sources = {"etc": {"options": {"path": "/", "retention": "last 1 days"}}, "new": {"options": {"path": "/"}}}
    assert tell(mallory, cast.alice.uuid, unit_name="mine", sources=sources) == "known"
    assert recovering.sql("SELECT * FROM fleet_machine WHERE uuid = ?", key) == before
    assert set(cast.alice.due()) == {"etc", "home"}
    assert status_of(lambda: mallory.due(cast.alice.uuid)) == 404


def test_a_machine_that_another_storage_reports_as_well_is_nobodys(
    recovering: Coordinator, cast: HttpCast, mallory: V1Storage
) -> None:
    lost = str(uuid.uuid4())
    assert tell(mallory, lost, unit_name="web/2") == "recovered"
    assert tell(cast.bob, lost, unit_name="web/2") == "claimed"
    assert lost not in mallory.update_config()
    # No code gives it to anybody before an operator has decided.
    assert "switched off" in recovering.manage("recover", "--from-storages", "--hours", "1")
