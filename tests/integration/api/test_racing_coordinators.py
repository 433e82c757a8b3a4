"""Several coordinators on one PostgreSQL, with requests for the same thing at the same moment: every outcome is exact.

Each coordinator is a `turku-api serve` with one worker process of four threads, as they would stand behind a load
balancer. A request goes to any of them.
"""

import itertools
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from tests.support.coordinator import Coordinator
from tests.support.postgresql import PostgresqlServer
from tests.support.racing_coordinators import COORDINATORS, racing_coordinators
from tests.support.v1_client import Refused, V1Machine, V1Storage, new_ssh_key

from turku.protocol import join_token
from turku.protocol.join_token import JoinKind

pytestmark = [pytest.mark.postgresql, pytest.mark.xdist_group("racing-coordinators")]

AT_ONCE = 12


@pytest.fixture(scope="module")
def coordinators(
    postgresql_server: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Coordinator]]:
    """Coordinators of one database, with the same keys."""
    directory = tmp_path_factory.mktemp("racing")
    environment = {
        "TURKU_TRUSTED_PROXIES": "127.0.0.1",
        # Counted, but never refused: losers of a race are answered with 403.
        "TURKU_BAD_CREDENTIALS_PER_MINUTE": "100000",
    }
    with racing_coordinators(postgresql_server, directory, "racing", environment=environment) as running:
        yield running


@pytest.fixture(scope="module")
def machine_auth(coordinators: list[Coordinator]) -> str:
    return coordinators[0].create_auth("machine_reg")


@pytest.fixture(scope="module")
def storage_auth(coordinators: list[Coordinator]) -> str:
    return coordinators[0].create_auth("storage_reg")


@pytest.fixture
def post(coordinators: list[Coordinator]) -> Callable[[str, Any], tuple[int, Any]]:
    """A load balancer: one coordinator after the other."""
    turns = itertools.cycle(coordinators)
    return lambda call, message: next(turns).post(call, message)


@pytest.fixture
def storage(post: Any, storage_auth: str) -> V1Storage:
    """A storage that takes new machines."""
    storage = V1Storage(post, auth=storage_auth, name=f"storage-{uuid.uuid4().hex[:8]}")
    storage.update_config()
    return storage


@pytest.fixture
def machine(coordinators: list[Coordinator], post: Any, machine_auth: str, storage: V1Storage) -> V1Machine:
    """A machine of that storage."""
    coordinators[0].sql("UPDATE fleet_storage SET space_available = 0 WHERE name <> ?", storage.name)
    machine = V1Machine(post, auth=machine_auth)
    machine.update_config({"etc": {"path": "/etc"}, "home": {"path": "/home"}})
    return machine


def statuses(acts: Sequence[Callable[..., object]]) -> list[int]:
    """Return the statuses of the answers to the acts, all at the same moment, in their order."""

    def status(act: Callable[..., object]) -> int:
        try:
            act()
        except Refused as error:
            return error.status
        return 200

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(status, acts))


def test_of_many_that_register_one_uuid_one_wins(
    coordinators: list[Coordinator], post: Any, machine_auth: str, storage: V1Storage
) -> None:
    identity = str(uuid.uuid4())
    rivals = [V1Machine(post, auth=machine_auth, uuid=identity) for _ in range(AT_ONCE)]
    found = statuses([lambda rival=rival: rival.update_config({"etc": {"path": "/etc"}}) for rival in rivals])
    assert Counter(found) == {200: 1, 403: AT_ONCE - 1}
    winner = rivals[found.index(200)]
    assert set(winner.due()) == {"etc"}
    sql = coordinators[0].sql
    assert sql("SELECT count(*) AS n FROM fleet_machine WHERE uuid = ?", identity) == [{"n": 1}]
    assert sql(
        "SELECT count(*) AS n FROM backups_source s JOIN fleet_machine m ON m.id = machine_id WHERE uuid = ?", identity
    ) == [{"n": 1}]
    registered = "SELECT count(*) AS n FROM audit_auditentry WHERE actor = ? AND action = 'machine.registered'"
    assert sql(registered, identity) == [{"n": 1}]


def test_one_machine_that_asks_many_times_at_first_is_registered_once(
    coordinators: list[Coordinator], post: Any, machine_auth: str, storage: V1Storage
) -> None:
    machine = V1Machine(post, auth=machine_auth)
    assert set(statuses([lambda: machine.update_config({"etc": {"path": "/etc"}})] * AT_ONCE)) == {200}
    actions = coordinators[0].sql("SELECT action FROM audit_auditentry WHERE actor = ? ORDER BY id", machine.uuid)
    assert [row["action"] for row in actions] == ["machine.registered", "source.added"]


def test_a_join_token_with_one_use_left_lets_in_one_of_many(coordinators: list[Coordinator], post: Any) -> None:
    created = ("join-token", "create", "machine", "--uses", "1", "--url", "https://turku.example.com", "--raw")
    secret = join_token.decode(coordinators[0].manage(*created), kind=JoinKind.MACHINE).secret.reveal()
    rivals = [V1Machine(post, auth=secret) for _ in range(AT_ONCE)]
    found = statuses([lambda rival=rival: rival.update_config({"etc": {"path": "/etc"}}) for rival in rivals])
    assert Counter(found) == {200: 1, 403: AT_ONCE - 1}
    known = coordinators[0].sql("SELECT uuid FROM fleet_machine")
    assert {rival.uuid for rival in rivals} & {str(row["uuid"]) for row in known} == {rivals[found.index(200)].uuid}


def test_of_many_machines_with_one_ssh_key_one_is_taken(
    coordinators: list[Coordinator], post: Any, machine_auth: str
) -> None:
    key = new_ssh_key()
    rivals = [V1Machine(post, auth=machine_auth, ssh_public_key=key) for _ in range(AT_ONCE)]
    found = statuses([lambda rival=rival: rival.update_config({}) for rival in rivals])
    assert Counter(found) == {200: 1, 400: AT_ONCE - 1}
    stored = coordinators[0].sql("SELECT uuid FROM fleet_machine WHERE ssh_public_key = ?", " ".join(key.split()[:2]))
    assert [str(row["uuid"]) for row in stored] == [rivals[found.index(200)].uuid]


def test_every_report_of_a_source_counts_once(
    coordinators: list[Coordinator], machine: V1Machine, storage: V1Storage
) -> None:
    # In either order: two reports of the same sources must not wait for each other.
    acts = [lambda: storage.failed(machine.uuid, "etc", "home"), lambda: storage.failed(machine.uuid, "home", "etc")]
    assert set(statuses(acts * AT_ONCE)) == {200}
    rows = coordinators[0].sql(
        "SELECT name, failure_count, (SELECT count(*) FROM backups_backuprun r WHERE r.source_id = s.id) AS runs "
        "FROM backups_source s JOIN fleet_machine m ON m.id = s.machine_id WHERE m.uuid = ? ORDER BY name",
        machine.uuid,
    )
    assert [tuple(row.values()) for row in rows] == [
        ("etc", 2 * AT_ONCE, 2 * AT_ONCE),
        ("home", 2 * AT_ONCE, 2 * AT_ONCE),
    ]


def test_of_many_that_redeem_one_code_one_gets_the_machine(
    coordinators: list[Coordinator], post: Any, machine: V1Machine
) -> None:
    code = coordinators[0].manage("machine", "re-enrol", machine.uuid, "--raw").strip()
    rivals = [V1Machine(post) for _ in range(AT_ONCE)]

    def redeem(rival: V1Machine) -> None:
        message = {"code": code, "secret": rival.secret, "ssh_public_key": rival.ssh_public_key}
        status, answer = post("machine_reenrol", message)
        if status != 200:
            raise Refused(status, answer)
        rival.uuid = answer["machine"]["uuid"]

    found = statuses([lambda rival=rival: redeem(rival) for rival in rivals])
    assert Counter(found) == {200: 1, 403: AT_ONCE - 1}
    winner = rivals[found.index(200)]
    assert winner.uuid == machine.uuid
    assert set(winner.restorable()) == {"etc", "home"}
    with pytest.raises(Refused):
        machine.due()


def test_a_waiting_machine_gets_one_storage_however_many_come_at_once(
    coordinators: list[Coordinator], post: Any, machine_auth: str, storage_auth: str, storage: V1Storage
) -> None:
    sql = coordinators[0].sql
    sql("UPDATE fleet_storage SET space_available = 0")
    waiting = [V1Machine(post, auth=machine_auth) for _ in range(AT_ONCE)]
    for each in waiting:
        each.update_config({"etc": {"path": "/etc"}})
    assert {name for each in waiting for name in each.due()} == set()
    storages = [V1Storage(post, auth=storage_auth, name=f"new-{uuid.uuid4().hex[:8]}") for _ in range(AT_ONCE)]
    answers: dict[str, dict[str, Any]] = {}
    comers = [lambda each=each: answers.update({each.name: each.update_config()}) for each in storages]
    # The machines ask too.
    comers += [lambda each=each: each.update_config({"etc": {"path": "/etc"}}) for each in waiting[: AT_ONCE // 2]]
    assert set(statuses(comers)) == {200}
    for each in waiting:
        each.update_config({"etc": {"path": "/etc"}})
        (row,) = sql(
            "SELECT s.name FROM fleet_machine m JOIN fleet_storage s ON s.id = m.storage_id WHERE m.uuid = ?", each.uuid
        )
        assigned = sql(
            "SELECT new ->> 'storage' AS storage FROM audit_auditentry "
            "WHERE subject_key = ? AND action IN ('machine.assigned', 'machine.changed') AND new ->> 'storage' <> ''",
            each.uuid,
        )
        assert assigned == [{"storage": row["name"]}], "assigned once, and the audit log says to whom"
        holders = [each_storage.name for each_storage in storages if each.uuid in each_storage.update_config()]
        assert holders == [row["name"]]


def test_bad_credentials_are_counted_together_to_the_last(coordinators: list[Coordinator]) -> None:
    reported_every, rounds = 5, 4
    for number in range(8):
        address = f"198.51.100.{number + 1}"

        def guess(coordinator: Coordinator, address: str = address) -> None:
            # The coordinator adds what it counted to the common count at each fifth.
            for _ in range(reported_every * rounds):
                message = {"machine": {"uuid": str(uuid.uuid4()), "secret": "x" * 30}}
                headers = {"X-Forwarded-For": address}
                url = f"{coordinator.url}/agent_ping_checkin"
                assert requests.post(url, json=message, headers=headers, timeout=30).status_code == 403

        assert statuses([lambda each=each: guess(each) for each in coordinators]) == [200] * COORDINATORS
        counted = coordinators[0].sql(
            "SELECT count FROM fleet_badcredentialcount WHERE bucket = ?", f"credentials {address}"
        )
        assert counted == [{"count": reported_every * rounds * COORDINATORS}]


def test_a_machine_that_checks_in_everywhere_at_once_is_noted_once(
    coordinators: list[Coordinator], machine: V1Machine
) -> None:
    sql = coordinators[0].sql
    sql("CREATE TABLE noted (seen timestamptz)")
    sql(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "BEGIN INSERT INTO noted VALUES (NEW.date_checked_in); RETURN NEW; END $$"
    )
    sql("CREATE TRIGGER note AFTER UPDATE OF date_checked_in ON fleet_machine FOR EACH ROW EXECUTE FUNCTION note()")
    for _ in range(10):
        sql("UPDATE fleet_machine SET date_checked_in = now() - interval '1 hour' WHERE uuid = ?", machine.uuid)
        sql("DELETE FROM noted")
        assert set(statuses([machine.due] * AT_ONCE)) == {200}
        assert sql("SELECT count(*) AS n FROM noted") == [{"n": 1}]


def test_connections_that_the_database_ended_are_made_anew(coordinators: list[Coordinator], machine: V1Machine) -> None:
    assert set(statuses([machine.due] * AT_ONCE)) == {200}
    # As when it restarts between two calls.
    coordinators[0].sql(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert set(statuses([machine.due] * AT_ONCE)) == {200}
