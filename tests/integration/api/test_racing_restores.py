"""Restore requests on several coordinators with one PostgreSQL: of all who want the same at once, one gets it."""

import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import requests
from tests.support.coordinator import Coordinator
from tests.support.postgresql import PostgresqlServer
from tests.support.racing_coordinators import COORDINATORS, racing_coordinators
from tests.support.v1_client import V1Machine, V1Storage

from turku.core.secret import generate_secret

pytestmark = [pytest.mark.postgresql, pytest.mark.xdist_group("racing-restores")]

AT_ONCE = 12
PEOPLE = ("ann", "ben", "eve", "joe")
ROUNDS = 6


class Person:
    """An operator's browser, logged in at one of the coordinators."""

    def __init__(self, coordinator: Coordinator, name: str, password: str) -> None:
        self._url = f"http://127.0.0.1:{coordinator.port}"
        self._session = requests.Session()
        page = self._session.get(f"{self._url}/admin/login/", timeout=30)
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token is not None
        form = {"username": name, "password": password, "csrfmiddlewaretoken": token[1]}
        assert "Log out" in self._session.post(f"{self._url}/admin/login/?next=/admin/", data=form, timeout=30).text

    def call(self, name: str, message: Any) -> tuple[int, Any]:
        """Status and answer of one of the console's calls."""
        headers = {"X-CSRFToken": str(self._session.cookies["csrftoken"])}
        answer = self._session.post(f"{self._url}/v2/{name}", json=message, headers=headers, timeout=30)
        return answer.status_code, answer.json()


@pytest.fixture(scope="module")
def coordinators(
    postgresql_server: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Coordinator]]:
    """Coordinators of one database, with the same keys."""
    directory = tmp_path_factory.mktemp("racing-restores")
    environment = {"TURKU_ALLOW_INSECURE_COOKIES": "true"}
    with racing_coordinators(postgresql_server, directory, "racing_restores", environment=environment) as running:
        yield running


@pytest.fixture(scope="module")
def people(coordinators: list[Coordinator]) -> list[Person]:
    """Operators, each at one of the coordinators."""
    found = []
    for number, name in enumerate(PEOPLE):
        password = generate_secret()
        coordinators[0].create_administrator(name, password)
        found.append(Person(coordinators[number % COORDINATORS], name, password.reveal()))
    return found


@pytest.fixture(scope="module")
def machine(coordinators: list[Coordinator]) -> V1Machine:
    """A machine with a storage."""
    post = coordinators[0].post
    V1Storage(post, auth=coordinators[0].create_auth("storage_reg")).update_config()
    machine = V1Machine(post, auth=coordinators[0].create_auth("machine_reg"))
    machine.update_config({"etc": {"path": "/etc"}})
    return machine


def at_once(acts: Sequence[Callable[..., Any]]) -> list[Any]:
    """Return the results of the acts, all at the same moment."""
    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(lambda act: act(), acts))


def audited(coordinators: list[Coordinator], request: str, action: str) -> list[Any]:
    return coordinators[0].sql(
        "SELECT actor, new FROM audit_auditentry WHERE subject_key = ? AND action = ? ORDER BY id", request, action
    )


def row(coordinators: list[Coordinator], request: str) -> Any:
    [found] = coordinators[0].sql("SELECT * FROM restores_restorerequest WHERE id = ?", request)
    return found


def ask(person: Person, machine: V1Machine) -> str:
    wanted = {"machine": machine.uuid, "source": "etc", "directory": "/srv/x", "reason": "lost"}
    status, made = person.call("restore_request", wanted)
    assert status == 200, made
    return str(made["id"])


def require_approvals(coordinators: list[Coordinator], number: int) -> None:
    coordinators[0].sql("DELETE FROM restores_restorepolicy")
    coordinators[0].sql(
        "INSERT INTO restores_restorepolicy (history_visible, approvals, other_machines, comment) "
        "VALUES (NULL, ?, NULL, '')",
        number,
    )


def test_of_many_who_approve_at_once_two_count(
    coordinators: list[Coordinator], people: list[Person], machine: V1Machine
) -> None:
    require_approvals(coordinators, 2)
    for _ in range(ROUNDS):
        request = ask(people[0], machine)
        acts = [partial(person.call, "restore_request_approve", {"request": request}) for person in people]
        statuses = [status for status, _answer in at_once(acts * 2)]
        found = row(coordinators, request)
        names = [found["first_approval_by"], found["second_approval_by"]]
        assert statuses.count(200) == 2
        assert statuses.count(409) == len(acts) * 2 - 2
        assert found["state"] == "waiting"
        assert len(set(names)) == 2
        assert found["second_approval_by"] != "ann", "who asked gives no second approval"
        assert [entry["actor"] for entry in audited(coordinators, request, "restore.approved")] == names


def test_of_many_who_approve_or_reject_at_once_one_decides(
    coordinators: list[Coordinator], people: list[Person], machine: V1Machine
) -> None:
    require_approvals(coordinators, 1)
    for _ in range(ROUNDS):
        request = ask(people[0], machine)
        acts = [
            partial(person.call, f"restore_request_{verb}", {"request": request})
            for person in people
            for verb in ("approve", "reject")
        ]
        assert [status for status, _answer in at_once(acts)].count(200) == 1
        state = row(coordinators, request)["state"]
        decisions = [len(audited(coordinators, request, f"restore.{word}")) for word in ("approved", "rejected")]
        assert decisions == ([1, 0] if state == "waiting" else [0, 1])
        assert state in ("waiting", "rejected")


def progress(coordinators: list[Coordinator], machine: V1Machine, request: str, claim: str, step: str) -> Any:
    coordinator = coordinators[int(claim, 16) % COORDINATORS]
    message: dict[str, Any] = {
        "machine": {"uuid": machine.uuid, "secret": machine.secret},
        "request": request,
        "claim": claim,
    }
    url = f"http://127.0.0.1:{coordinator.port}/v2/agent_restore_progress"
    answer = requests.post(url, json={**message, "step": step}, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()["go_on"]


def test_of_many_runs_that_pick_up_at_once_one_has_it(
    coordinators: list[Coordinator], people: list[Person], machine: V1Machine
) -> None:
    require_approvals(coordinators, 0)
    for _ in range(ROUNDS):
        request = ask(people[0], machine)
        claims = [uuid.uuid4().hex for _ in range(AT_ONCE)]
        acts = [partial(progress, coordinators, machine, request, claim, "picked_up") for claim in claims]
        results = at_once(acts)
        assert results.count(True) == 1
        found = row(coordinators, request)
        assert (found["claim"], found["attempts"]) == (claims[results.index(True)], 1)
        assert len(audited(coordinators, request, "restore.picked_up")) == 1
        # Each of them says that it ended: the one that has it counts.
        acts = [partial(progress, coordinators, machine, request, claim, "whole") for claim in claims]
        at_once(acts)
        assert row(coordinators, request)["state"] == "done"
        assert len(audited(coordinators, request, "restore.ended")) == 1


def test_a_cancellation_and_an_outcome_at_once_leave_one_end(
    coordinators: list[Coordinator], people: list[Person], machine: V1Machine
) -> None:
    require_approvals(coordinators, 0)
    for _ in range(ROUNDS):
        request = ask(people[0], machine)
        claim = uuid.uuid4().hex
        assert progress(coordinators, machine, request, claim, "picked_up")
        acts = [partial(progress, coordinators, machine, request, claim, "whole")]
        acts += [partial(person.call, "restore_request_cancel", {"request": request}) for person in people]
        at_once(acts)
        ends = {word: len(audited(coordinators, request, f"restore.{word}")) for word in ("ended", "cancelled")}
        state = row(coordinators, request)["state"]
        assert ends == ({"ended": 1, "cancelled": 0} if state == "done" else {"ended": 0, "cancelled": 1})
        assert row(coordinators, request)["date_offered"] is None


def test_a_request_expires_once(coordinators: list[Coordinator], people: list[Person], machine: V1Machine) -> None:
    require_approvals(coordinators, 1)
    made = [ask(people[0], machine) for _ in range(5)]
    coordinators[0].sql("UPDATE restores_restorerequest SET date_expires = now() WHERE state = 'requested'")
    at_once([partial(person.call, "restore_request_list", {}) for person in people * 2])
    for request in made:
        assert row(coordinators, request)["state"] == "expired"
        assert len(audited(coordinators, request, "restore.expired")) == 1
