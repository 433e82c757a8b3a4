"""M11: a machine tries to keep its storage's slots from the others: by asking and not coming, by asking all the time, by
a great many sources."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.support.http_cast import HttpCast
from tests.support.v1_client import V1Machine

SOURCES = {"etc": {"path": "/etc", "frequency": "hourly"}}


@pytest.fixture
def mallory(cast: HttpCast) -> V1Machine:
    """Another machine of Bob's, who has one slot for first backups and one for the others."""
    cast.bob.space_available = 1e12
    cast.bob.update_config(slots=2)
    mallory = cast.machine(unit_name="mallory")
    mallory.update_config(SOURCES)
    cast.bob.space_available = 0
    cast.bob.update_config(slots=2)
    backed_up(cast)
    return mallory


def backed_up(cast: HttpCast) -> None:
    """All sources of Bob's machines were backed up before, and have been due since an hour."""
    cast.rows(
        "UPDATE backups_source SET date_last_backed_up = datetime('now', '-2 days'), "
        "date_next_backup = datetime('now', '-1 hour') WHERE machine_id IN "
        "(SELECT m.id FROM fleet_machine m JOIN fleet_storage s ON s.id = m.storage_id WHERE s.name = ?)",
        cast.bob.name,
    )


def pass_minutes(cast: HttpCast, minutes: int) -> None:
    """Let Bob's slots be that much older."""
    cast.rows(
        f"UPDATE queue_slot SET date_expires = datetime(date_expires, '-{minutes} minutes') "
        "WHERE storage_id = (SELECT id FROM fleet_storage WHERE name = ?)",
        cast.bob.name,
    )


def slots_of(cast: HttpCast, machine: V1Machine) -> int:
    key = cast.coordinator.key(machine.uuid)
    return len(
        cast.rows(
            "SELECT 1 FROM queue_slot k JOIN fleet_machine m ON m.id = k.machine_id "
            "WHERE m.uuid = ? AND k.date_expires > datetime('now')",
            key,
        )
    )


def test_one_that_asks_and_never_comes_stands_behind_the_others(cast: HttpCast, mallory: V1Machine) -> None:
    assert set(mallory.due()) == {"etc"}
    assert cast.alice.due() == {}
    for _ in range(20):
        mallory.due()
    pass_minutes(cast, 3)
    # Mallory is quicker, each time.
    for _ in range(5):
        assert mallory.due() == {}
    assert set(cast.alice.due()) == {"etc", "home"}
    assert set(cast.bob.due(cast.alice.uuid)) == {"etc", "home"}
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")


def test_asking_all_the_time_prolongs_no_reservation(cast: HttpCast, mallory: V1Machine) -> None:
    mallory.due()
    for _ in range(3):
        pass_minutes(cast, 1)
        mallory.due()
        cast.alice.due()
    assert slots_of(cast, mallory) == 0
    assert set(cast.alice.due()) == {"etc", "home"}


def test_with_any_number_of_sources_it_has_one_slot_of_each_kind(cast: HttpCast, mallory: V1Machine) -> None:
    cast.bob.update_config(slots=16)
    mallory.update_config({f"source-{number}": {"path": "/x"} for number in range(200)} | SOURCES)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: mallory.due(), range(16)))
        list(pool.map(lambda _: cast.bob.due(mallory.uuid), range(16)))
    assert slots_of(cast, mallory) == 2
    assert set(cast.alice.due()) == {"etc", "home"}


def test_it_cannot_end_or_prolong_the_lease_of_another(cast: HttpCast, mallory: V1Machine) -> None:
    assert set(cast.alice.due()) == {"etc", "home"}
    message = {"storage": {"name": mallory.uuid, "secret": mallory.secret}, "machine": {"uuid": cast.alice.uuid}}
    assert cast.post("../v2/storage_heartbeat", {**message, "ended": True})[0] in (400, 403, 404)
    assert slots_of(cast, cast.alice) == 1
