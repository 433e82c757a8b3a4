"""M8, S1: machines and storages that want history which is not theirs, or speak for restores that are not theirs.

The coordinator is real. Mallory is a compromised machine, on a storage of its own, with the same Auth as Alice.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
import requests
from tests.support.http_cast import HttpCast
from tests.support.v1_client import V1Machine, V1Storage


@dataclass
class Scene:
    """Alice on Bob's storage, and Mallory on Eve's."""

    cast: HttpCast
    mallory: V1Machine
    eve: V1Storage

    def post(self, call: str, message: Any) -> tuple[int, Any]:
        url = self.cast.coordinator.url.removesuffix("/v1") + f"/v2/{call}"
        response = requests.post(url, json=message, timeout=30)
        return response.status_code, response.json()

    def request_access(self, storage: V1Storage, machine: V1Machine, **asked: Any) -> Any:
        """Return the answer to a storage that asks if it may send Alice's ``etc``, or what else is asked."""
        message = {
            "storage": {"name": storage.name, "secret": storage.secret},
            "machine": {"uuid": machine.uuid},
            "action": "restore",
            "source": "etc",
            **asked,
        }
        status, answer = self.post("storage_access_request", message)
        assert status == 200, answer
        return answer

    def tell(
        self, machine: V1Machine, request: str, step: str, claim: str = "c" * 32, **fields: Any
    ) -> tuple[int, Any]:
        message = {"machine": {"uuid": machine.uuid, "secret": machine.secret}, "request": request, "claim": claim}
        return self.post("agent_restore_progress", {**message, "step": step, **fields})

    def request(self, *, onto: V1Machine | None = None, state: str = "waiting") -> str:
        """The id of a request for Alice's ``etc``, in that state, onto Alice unless said otherwise."""
        return self.requests([state], onto=onto)[state]

    def requests(self, states: Sequence[str], *, onto: V1Machine | None = None) -> dict[str, str]:
        """The ids of such requests, by state."""
        made = {state: str(uuid4()) for state in states}
        self.cast.operator(
            "from turku.api.restores.models import *; now = datetime.now(UTC); "
            f"RestoreRequest.objects.bulk_create(RestoreRequest(id=key, source=alice.sources.get(name='etc'), "
            f"target=Machine.objects.get(uuid='{(onto or self.cast.alice).uuid}'), directory='/srv/x', reason='lost', "
            "state=state, approvals_needed=1, requested_by='ann', date_requested=now, date_approved=now, "
            "date_offered=now if state == 'waiting' else None, date_expires=now + timedelta(days=7)) "
            f"for state, key in {made!r}.items())"
        )
        return made

    def row(self, request: str) -> Any:
        (row,) = self.cast.rows(
            "SELECT state, claim, files, message, attempts FROM restores_restorerequest WHERE id = ?",
            self.cast.coordinator.key(request),
        )
        return row


@pytest.fixture
def scene(cast: HttpCast) -> Scene:
    eve = cast.storage()
    eve.update_config()
    mallory = cast.machine(unit_name="mallory")
    mallory.update_config({"etc": {"path": "/etc"}})
    cast.operator(
        f"Machine.objects.filter(uuid='{mallory.uuid}').update(storage=Storage.objects.get(name='{eve.name}'))"
    )
    return Scene(cast, mallory, eve)


def test_m8_nothing_but_a_running_request_onto_it_gives_a_machine_another_ones_history(scene: Scene) -> None:
    alice, bob, mallory = scene.cast.alice, scene.cast.bob, scene.mallory
    of_alice = {"of_machine": alice.uuid}
    assert scene.request_access(bob, alice) == {"allowed": True}
    ones_own = scene.request()
    scene.tell(alice, ones_own, "picked_up")
    over = ("done", "cancelled", "expired", "rejected", "refused")
    onto_mallory = scene.requests(("requested", "waiting", *over), onto=mallory)
    attempts: dict[str, dict[str, Any]] = {
        "no request": of_alice,
        "a made-up one": {**of_alice, "request": str(uuid4())},
        "no id at all": {**of_alice, "request": "' OR 1=1 --"},
        "one onto Alice": {**of_alice, "request": ones_own},
        **{f"one that is {state}": {**of_alice, "request": key} for state, key in onto_mallory.items()},
        "Alice's name alone": {},
    }
    for what, asked in attempts.items():
        assert not scene.request_access(bob, mallory, **asked)["allowed"], what
    allowed = onto_mallory["waiting"]
    assert scene.tell(mallory, allowed, "picked_up") == (200, {"go_on": True})
    assert scene.request_access(bob, mallory, **of_alice, request=allowed)["allowed"]
    for other in ({"source": "home"}, {"source": "nothing"}, {"of_machine": str(uuid4())}):
        assert not scene.request_access(bob, mallory, **{**of_alice, "request": allowed, **other})["allowed"], other
    denied = scene.cast.rows("SELECT actor FROM audit_auditentry WHERE action = 'restore.denied'")
    assert bob.name in {row["actor"] for row in denied}


def test_m8_a_machine_reports_on_its_own_restores_alone(scene: Scene) -> None:
    request = scene.request()
    alice, mallory = scene.cast.alice, scene.mallory
    for step in ("picked_up", "running", "whole", "failed", "refused", "postponed", "cancelled"):
        status, answer = scene.tell(mallory, request, step, message="mine")
        assert (status, set(answer)) == (404, {"error"}), step
        assert scene.tell(mallory, str(uuid4()), step) == (status, answer), "nor does the answer tell that it is there"
    assert scene.row(request) == {"state": "waiting", "claim": "", "files": 0, "message": "", "attempts": 0}
    posing = V1Machine(alice.post, uuid=alice.uuid, secret=mallory.secret)
    assert scene.tell(posing, request, "picked_up")[0] == 403
    assert scene.tell(alice, request, "picked_up") == (200, {"go_on": True})
    # Another program on the machine that knows its secret, but not the run's claim.
    for step in ("running", "whole", "postponed"):
        assert not scene.tell(alice, request, step, claim="d" * 32, files=9)[1]["go_on"]
    assert scene.row(request)["state"] == "picked_up"


def test_m8_only_a_request_that_was_approved_is_picked_up(scene: Scene) -> None:
    made = scene.requests(("requested", "rejected", "cancelled", "expired", "done"))
    for state, request in made.items():
        for step in ("picked_up", "running", "whole"):
            assert not scene.tell(scene.cast.alice, request, step)[1]["go_on"]
        assert scene.row(request)["state"] == state


def test_s1_a_storage_gets_no_grant_for_the_history_of_another(scene: Scene) -> None:
    alice, bob, mallory, eve = scene.cast.alice, scene.cast.bob, scene.mallory, scene.eve
    request = scene.request(onto=mallory)
    scene.tell(mallory, request, "picked_up")
    unknown = scene.request_access(eve, V1Machine(alice.post, uuid=str(uuid4())))
    assert not unknown["allowed"]
    assert scene.request_access(eve, alice) == unknown
    assert scene.request_access(eve, alice, source="nothing") == unknown
    assert scene.request_access(eve, mallory, of_machine=alice.uuid, request=request) == unknown
    assert scene.request_access(eve, alice, request=request) == unknown
    assert scene.request_access(eve, mallory)["allowed"], "its own"
    posing = V1Storage(eve.post, name=bob.name, secret=eve.secret)
    message = {"storage": {"name": posing.name, "secret": posing.secret}, "machine": {"uuid": alice.uuid}}
    assert scene.post("storage_access_request", {**message, "action": "browse", "source": "etc"})[0] == 403


def test_s1_the_other_machine_s_key_is_let_in_by_the_storage_that_has_the_files(scene: Scene) -> None:
    mallory = scene.mallory
    assert mallory.uuid not in scene.cast.bob.update_config()
    request = scene.request(onto=mallory)
    assert mallory.uuid in scene.cast.bob.update_config()
    assert set(scene.eve.update_config()) == {mallory.uuid}
    assert scene.cast.alice.uuid not in scene.eve.update_config()
    scene.tell(mallory, request, "picked_up")
    scene.tell(mallory, request, "whole")
    assert mallory.uuid not in scene.cast.bob.update_config()


def test_n3_malformed_messages_are_refused_with_a_field(scene: Scene) -> None:
    alice, bob = scene.cast.alice, scene.cast.bob
    request_access = {
        "storage": {"name": bob.name, "secret": bob.secret},
        "machine": {"uuid": alice.uuid},
        "action": "browse",
        "source": "etc",
    }
    progress = {
        "machine": {"uuid": alice.uuid, "secret": alice.secret},
        "request": str(uuid4()),
        "claim": "c" * 32,
        "step": "running",
    }
    for call, message in (("storage_access_request", request_access), ("agent_restore_progress", progress)):
        for name in message:
            value: object
            for value in (None, 3, {}, [], "\0", "x" * 100_000, "\ud800"):
                changed = json.loads(json.dumps({**message, name: value}))
                url = scene.cast.coordinator.url.removesuffix("/v1") + f"/v2/{call}"
                answer = requests.post(url, data=json.dumps(changed), timeout=30)
                assert answer.status_code in (200, 400, 403, 404), (call, name, value, answer.text)
                if answer.status_code == 400:
                    assert answer.json()["error"]
    for figures in ({"files": -1}, {"files": 2**70}, {"claim": "short"}, {"step": "done"}, {"size_bytes": 1.5}):
        assert scene.post("agent_restore_progress", {**progress, **figures})[0] == 400, figures
