"""Several coordinators on one PostgreSQL, with machines that ask for the same slots at the same moment: never more are
given away than there are, and each that is free is given away."""

import itertools
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from tests.support.coordinator import Coordinator
from tests.support.postgresql import PostgresqlServer
from tests.support.racing_coordinators import racing_coordinators
from tests.support.v1_client import V1Machine, V1Storage

pytestmark = [pytest.mark.postgresql, pytest.mark.xdist_group("racing-for-slots")]

MACHINES = 16
SLOTS = 8
"""Of which two are for first backups."""


@pytest.fixture(scope="module")
def coordinators(
    postgresql_server: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Coordinator]]:
    """Coordinators of one database, with the same keys."""
    with racing_coordinators(postgresql_server, tmp_path_factory.mktemp("slots"), "slots") as running:
        yield running


class Site:
    """A storage and its machines, each request of theirs going to the next coordinator."""

    def __init__(self, coordinators: list[Coordinator]) -> None:
        turns = itertools.cycle(coordinators)
        lock = threading.Lock()

        def turn() -> Coordinator:
            with lock:
                return next(turns)

        self._turn = turn
        self.sql = coordinators[0].sql
        storage_auth, machine_auth = (
            coordinators[0].create_auth("storage_reg"),
            coordinators[0].create_auth("machine_reg"),
        )

        def post(call: str, message: Any) -> tuple[int, Any]:
            return turn().post(call, message)

        self.storage = V1Storage(post, auth=storage_auth, name=f"storage-{uuid.uuid4().hex[:8]}")
        self.storage.update_config(slots=SLOTS)
        self.sql("UPDATE fleet_storage SET space_available = 0 WHERE name <> ?", self.storage.name)
        self.machines = [V1Machine(post, auth=machine_auth, unit_name=f"web-{number}") for number in range(MACHINES)]
        for machine in self.machines:
            machine.update_config({"etc": {"path": "/etc"}})

    def backed_up_before(self) -> None:
        self.sql("UPDATE backups_source SET date_last_backed_up = now() - interval '1 day'")

    def free_all(self) -> None:
        self.sql("UPDATE queue_slot SET machine_id = NULL, date_freed = now() - interval '1 hour'")
        self.sql("DELETE FROM queue_waitingmachine")

    def held(self) -> int:
        (row,) = self.sql(
            "SELECT count(*) AS n FROM queue_slot k JOIN fleet_storage s ON s.id = k.storage_id "
            "WHERE s.name = ? AND machine_id IS NOT NULL AND date_expires > now()",
            self.storage.name,
        )
        return int(row["n"])

    def heartbeat(self, machine: V1Machine, *, ended: bool = False) -> bool:
        url = self._turn().url.removesuffix("/v1")
        message: dict[str, Any] = {
            "storage": {"name": self.storage.name, "secret": self.storage.secret},
            "machine": {"uuid": machine.uuid},
            "ended": ended,
        }
        answer = requests.post(f"{url}/v2/storage_heartbeat", json=message, timeout=30)
        assert answer.status_code == 200
        return bool(answer.json()["leased"])


@pytest.fixture(scope="module")
def site(coordinators: list[Coordinator]) -> Site:
    return Site(coordinators)


def at_once(acts: list[Callable[..., Any]]) -> list[Any]:
    """Return the results of the acts, all at the same moment."""
    with ThreadPoolExecutor(len(acts)) as pool:
        return [future.result() for future in [pool.submit(act) for act in acts]]


@pytest.mark.parametrize(("is_first", "slots"), [(True, SLOTS // 4), (False, SLOTS - SLOTS // 4)])
def test_of_many_machines_that_ask_at_once_as_many_get_slots_as_there_are(
    site: Site, is_first: bool, slots: int
) -> None:
    if not is_first:
        site.backed_up_before()
    for _ in range(2):
        site.free_all()
        # Each twice, at different coordinators: a machine has one slot however often it asks.
        answers = at_once([machine.due for machine in site.machines * 2])
        assert site.held() == slots
        admitted = {index % MACHINES for index, sources in enumerate(answers) if sources}
        assert len(admitted) == slots
        # Those that came too late for a reservation try it at the storage.
        begun = at_once([lambda each=each: site.storage.due(each.uuid) for each in site.machines])
        assert {index for index, sources in enumerate(begun) if sources} == admitted
        assert site.held() == slots


def test_a_lapsed_slot_goes_to_one_of_those_that_want_it(site: Site) -> None:
    site.backed_up_before()
    slots = SLOTS - SLOTS // 4
    for _ in range(2):
        site.free_all()
        first, rest = site.machines[:slots], site.machines[slots:]
        assert all(at_once([machine.due for machine in first]))
        site.sql("UPDATE queue_slot SET date_expires = now() - interval '10 minutes' WHERE machine_id IS NOT NULL")
        answers = at_once([machine.due for machine in rest])
        assert sum(1 for sources in answers if sources) == min(slots, len(rest))
        assert site.held() == min(slots, len(rest))


def test_in_a_long_mixture_no_more_sessions_run_than_there_are_slots(site: Site) -> None:
    site.backed_up_before()
    site.free_all()
    slots = SLOTS - SLOTS // 4
    running: set[str] = set()
    lock = threading.Lock()
    most = 0

    def live(machine: V1Machine, seed: int) -> int:
        nonlocal most
        chance, sessions = random.Random(seed), 0
        for _ in range(8):
            if not machine.due() or not site.storage.due(machine.uuid):
                continue
            with lock:
                running.add(machine.uuid)
                most = max(most, len(running))
            sessions += 1
            assert site.heartbeat(machine)
            with lock:
                running.remove(machine.uuid)
            if chance.random() < 0.5:
                site.heartbeat(machine, ended=True)
            else:
                site.storage.succeeded(machine.uuid, "etc")
                key = uuid.UUID(machine.uuid)
                site.sql(
                    "UPDATE backups_source SET date_next_backup = now() WHERE machine_id = "
                    "(SELECT id FROM fleet_machine WHERE uuid = ?)",
                    key,
                )
        return sessions

    sessions = at_once([lambda each=each, seed=seed: live(each, seed) for seed, each in enumerate(site.machines)])
    assert 1 < most <= slots
    assert sum(sessions) > slots
