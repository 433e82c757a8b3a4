"""Heartbeats of a session: to a coordinator of ours, to one of the existing system, and to one that is away."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.backed_up_machine import storage_configuration
from tests.support.coordinator import Coordinator
from tests.support.http_cast import HttpCast
from tests.support.sshd import free_port
from tests.support.v1_server import V1Api

from turku.storage.config.model import StorageConfig
from turku.storage.session.checkin import Heartbeat

UUID = "9bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
PAUSE_SECONDS = 0.1


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    with Coordinator(tmp_path_factory.mktemp("coordinator"), workers=1) as running:
        yield running


def configuration(directory: Path, cast: HttpCast) -> StorageConfig:
    return storage_configuration(directory, api_url=cast.coordinator.url, name=cast.bob.name, secret=cast.bob.secret)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_lease_is_prolonged_while_the_session_goes_on_and_ended_with_it(
    coordinator: Coordinator, tmp_path: Path
) -> None:
    cast = HttpCast.introduce(coordinator)
    machine = cast.machine_row()["id"]

    def slot() -> list[dict[str, object]]:
        return cast.rows("SELECT * FROM queue_slot WHERE machine_id = ?", machine)

    cast.alice.due()
    with Heartbeat(configuration(tmp_path, cast), cast.alice.uuid, pause_seconds=PAUSE_SECONDS) as heartbeat:
        begun = cast.bob.due(cast.alice.uuid)
        assert slot()[0]["date_heartbeat"] is None
        heartbeat.begin(begun)
        until(lambda: slot()[0]["date_heartbeat"])
        first = slot()[0]["date_expires"]
        until(lambda: slot()[0]["date_expires"] != first)
    assert slot() == []


def test_a_session_whose_sources_are_all_reported_has_nothing_more_to_report(tmp_path: Path) -> None:
    with V1Api() as api:
        storage = storage_configuration(tmp_path, api_url=api.url)
        with Heartbeat(storage, UUID, pause_seconds=60) as heartbeat:
            heartbeat.begin(["etc", "home"])
            for source in ("etc", "home"):
                heartbeat.reported(source)
        with Heartbeat(storage, UUID, pause_seconds=60) as heartbeat:
            heartbeat.begin([])
        assert api.calls == []


def test_an_existing_coordinator_is_asked_once(tmp_path: Path) -> None:
    with V1Api() as api:
        storage = storage_configuration(tmp_path, api_url=api.url)
        with Heartbeat(storage, UUID, pause_seconds=PAUSE_SECONDS) as heartbeat:
            heartbeat.begin(["etc"])
            until(lambda: api.calls)
            time.sleep(5 * PAUSE_SECONDS)
        assert [call for call, _ in api.calls] == ["/v2/storage_heartbeat"]


def test_a_session_that_lost_its_slot_says_so_once_and_goes_on(
    coordinator: Coordinator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cast = HttpCast.introduce(coordinator)
    with (
        caplog.at_level(logging.WARNING),
        Heartbeat(configuration(tmp_path, cast), cast.alice.uuid, pause_seconds=PAUSE_SECONDS) as heartbeat,
    ):
        heartbeat.begin(["etc"])
        until(lambda: caplog.records)
        time.sleep(5 * PAUSE_SECONDS)
    (record,) = caplog.records
    assert "may give its slot to another machine" in record.getMessage()


def test_a_coordinator_that_is_away_disturbs_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = storage_configuration(tmp_path, api_url=f"http://127.0.0.1:{free_port()}/v1")
    with caplog.at_level(logging.INFO), Heartbeat(storage, UUID, pause_seconds=PAUSE_SECONDS) as heartbeat:
        heartbeat.begin(["etc"])
        time.sleep(5 * PAUSE_SECONDS)
    assert caplog.records == []
