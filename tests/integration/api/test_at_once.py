"""Calls of many clients at the same moment, on both databases: none is lost, and none is answered with a server error."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.support.coordinator import Coordinator
from tests.support.http_cast import HttpCast, status_of

from turku.protocol import join_token
from turku.protocol.join_token import JoinKind

SOURCES: dict[str, Any] = {name: {"path": f"/{name}"} for name in ("boot", "etc", "home", "srv")}
ROUNDS = 5


@pytest.fixture
def cast(coordinator: Coordinator) -> HttpCast:
    return HttpCast.introduce(coordinator)


def at_once(*acts: Callable[..., Any]) -> list[Any]:
    """Return what all of them returned, or raise what one of them raised."""
    with ThreadPoolExecutor(len(acts)) as pool:
        return [future.result() for future in [pool.submit(act) for act in acts]]


def test_of_first_registrations_one_makes_the_machine(cast: HttpCast) -> None:
    twin = cast.machine(unit_name="twin")
    at_once(*[lambda: twin.update_config(SOURCES)] * 16)
    entries = cast.rows(
        "SELECT * FROM audit_auditentry WHERE action = ? AND actor = ?", "machine.registered", twin.uuid
    )
    assert len(entries) == 1


def test_a_join_token_with_uses_left_for_two_lets_in_two_of_many(cast: HttpCast) -> None:
    created = ("join-token", "create", "machine", "--uses", "2", "--url", "https://turku.example.com", "--raw")
    secret = join_token.decode(cast.coordinator.manage(*created), kind=JoinKind.MACHINE).secret.reveal()
    rivals = [cast.machine(auth=secret, unit_name=f"rival-{number}") for number in range(12)]
    statuses = at_once(*[lambda rival=rival: status_of(lambda: rival.update_config(SOURCES)) for rival in rivals])
    winners = [rival.uuid for rival, status in zip(rivals, statuses, strict=True) if status == 200]
    assert sorted(statuses) == [200] * 2 + [403] * 10
    registered = cast.rows(
        "SELECT auth_id FROM fleet_machine WHERE uuid IN (?, ?)", *map(cast.coordinator.key, winners)
    )
    (auth,) = {row["auth_id"] for row in registered}
    assert len(registered) == 2
    assert cast.rows("SELECT uses_count FROM fleet_auth WHERE id = ?", auth) == [{"uses_count": 2}]
    # They are known now, and use nothing up.
    rivals[statuses.index(200)].update_config(SOURCES)


def test_no_report_is_lost_to_another_or_to_a_configuration(cast: HttpCast) -> None:
    cast.alice.update_config(SOURCES)
    for number in range(ROUNDS):
        declared = {name: {**options, "comment": f"round {number}"} for name, options in SOURCES.items()}
        fail = [lambda: cast.bob.failed(cast.alice.uuid, *SOURCES), lambda: cast.bob.failed(cast.alice.uuid, "etc")]
        at_once(
            *fail * 3,
            lambda declared=declared: cast.alice.update_config(declared),
            cast.alice.due,
            cast.alice.restorable,
        )
    counts = {row["name"]: row["failure_count"] for row in cast.source_rows()}
    assert counts == {**dict.fromkeys(SOURCES, 3 * ROUNDS), "etc": 6 * ROUNDS}


def test_a_configuration_does_not_undo_the_report_of_the_same_moment(cast: HttpCast) -> None:
    cast.alice.update_config(SOURCES)
    cast.bob.succeeded(cast.alice.uuid, *SOURCES)
    alice = cast.machine_row()["id"]
    for number in range(2 * ROUNDS):
        cast.rows("UPDATE backups_source SET date_next_backup = ? WHERE machine_id = ?", "2020-01-01 00:00:00", alice)
        # One with a new schedule, and others with something else.
        declared = {name: {**options, "comment": f"round {number}"} for name, options in SOURCES.items()}
        declared["boot"]["frequency"] = ("daily", "weekly")[number % 2]
        at_once(
            lambda: cast.bob.succeeded(cast.alice.uuid, *SOURCES),
            lambda declared=declared: cast.alice.update_config(declared),
        )
        assert cast.alice.due() == {}


def test_waiting_machines_are_each_given_to_one_storage(cast: HttpCast) -> None:
    waiting = [cast.machine(unit_name=f"waiting-{number}") for number in range(20)]
    at_once(*[lambda machine=machine: machine.update_config({}) for machine in waiting])
    storages = [cast.storage(space_available=1e6) for _ in range(4)]
    for storage in storages:
        storage.update_config()
    keys = [cast.coordinator.key(machine.uuid) for machine in waiting]
    for _ in range(ROUNDS):
        cast.rows(f"UPDATE fleet_machine SET storage_id = NULL WHERE uuid IN ({', '.join('?' * len(keys))})", *keys)
        at_once(
            *[storage.update_config for storage in storages],
            *[lambda machine=machine: machine.update_config({}) for machine in waiting],
        )
    kept = [key for storage in storages for key in storage.update_config(published=False)]
    assert sorted(kept) == sorted(machine.uuid for machine in waiting)
