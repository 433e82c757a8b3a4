"""N2: guessing secrets is answered alike, costs little, and ends soon. Callers that behave are answered all the
while."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.support.coordinator import Coordinator
from tests.support.http_cast import SOURCES, HttpCast, status_of
from tests.support.v1_client import Refused, V1Machine, ask

WORKERS = 2
CALLERS_AT_ONCE = 4
LIMIT = 30
REPORTED_EVERY = 5
"""The number of failures that a worker counts by itself before it tells the others."""


def throttled(state_dir: Path, workers: int) -> Coordinator:
    """A coordinator with its throttle on, which believes a proxy on loopback: a test can call from several addresses."""
    return Coordinator(state_dir, workers=workers, environment={"TURKU_TRUSTED_PROXIES": "127.0.0.1"})


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    """One worker, so that every guess is counted where the next one is answered and the figures are exact."""
    with throttled(tmp_path_factory.mktemp("guarded") / "state", 1) as running:
        yield running


@pytest.fixture
def several_workers(tmp_path: Path) -> Iterator[Coordinator]:
    with throttled(tmp_path / "state", WORKERS) as running:
        yield running


def from_address(coordinator: Coordinator, address: str) -> Callable[[str, Any], tuple[int, Any]]:
    """A way to call the coordinator from that address."""
    import requests

    def post(call: str, message: Any) -> tuple[int, Any]:
        headers = {"X-Forwarded-For": address}
        response = requests.post(f"{coordinator.url}/{call}", json=message, headers=headers, timeout=30)
        return response.status_code, response.json()

    return post


def test_n2_unknown_and_wrong_are_answered_alike(cast: HttpCast) -> None:
    strangers = [
        cast.machine(auth=None),
        cast.machine(auth=None, uuid=cast.alice.uuid),
        cast.machine(auth={"name": "nobody", "secret": "x"}),
        cast.machine(auth={**cast.machine_auth, "secret": "x"}),
        cast.machine(auth="x"),
        cast.machine(uuid=cast.alice.uuid),
    ]
    answers = set()
    for stranger in strangers:
        with pytest.raises(Refused) as caught:
            stranger.update_config(SOURCES)
        answers.add((caught.value.status, caught.value.sentence))
    for call in ("due", "restorable"):
        for stranger in strangers[:2]:
            with pytest.raises(Refused) as caught:
                getattr(stranger, call)()
            answers.add((caught.value.status, caught.value.sentence))
    assert len(answers) == 1


def test_n2_a_flood_of_guesses_ends_soon_for_all_workers(several_workers: Coordinator) -> None:
    post = from_address(several_workers, "203.0.113.1")
    victim = HttpCast.introduce(several_workers).alice

    def guess(number: int) -> int:
        return status_of(V1Machine(post, uuid=victim.uuid, secret=f"guess {number:030}").due)

    with ThreadPoolExecutor(CALLERS_AT_ONCE) as pool:
        statuses = Counter(pool.map(guess, range(200)))
    assert set(statuses) == {403, 429}
    # A worker hears of the limit when it tells its own next failures. The calls that are under way count as well.
    assert statuses[403] <= LIMIT + REPORTED_EVERY * (WORKERS + CALLERS_AT_ONCE)
    # The kernel chooses the worker: one that was seldom chosen may answer the few guesses that it has not yet told.
    assert Counter(guess(number) for number in range(100))[403] <= REPORTED_EVERY


def test_n2_the_right_secret_does_not_help_after_a_flood(guarded: Coordinator) -> None:
    alice = HttpCast.introduce(guarded).alice
    post = from_address(guarded, "203.0.113.2")
    for number in range(60):
        status_of(V1Machine(post, secret=f"guess {number:030}").due)
    assert status_of(V1Machine(post, uuid=alice.uuid, secret=alice.secret).due) == 429
    assert set(alice.due()) == {"etc", "home"}, "from where it lives the machine is answered"


def test_n2_neighbours_behind_the_same_router_are_answered(guarded: Coordinator) -> None:
    cast = HttpCast.introduce(guarded)
    post = from_address(guarded, "203.0.113.3")
    neighbour = V1Machine(post, uuid=cast.alice.uuid, secret=cast.alice.secret)
    neighbour.due()
    for number in range(60):
        status_of(V1Machine(post, secret=f"guess {number:030}").due)
    assert status_of(V1Machine(post).due) == 429
    assert [status_of(neighbour.due) for _ in range(10)] == [200] * 10


def test_n2_re_enrolment_codes_are_guessed_no_faster(guarded: Coordinator) -> None:
    post = from_address(guarded, "203.0.113.4")
    machine = V1Machine(post)
    message = {"secret": machine.secret, "ssh_public_key": machine.ssh_public_key}
    statuses = Counter(
        status_of(lambda number=number: ask(post, "machine_reenrol", {**message, "code": f"{number:030}"}))
        for number in range(60)
    )
    assert statuses == {403: LIMIT, 429: 30}


def test_n2_a_forged_forwarding_header_hides_nobody(cast: HttpCast) -> None:
    post = from_address(cast.coordinator, "203.0.113.5")
    V1Machine(post, uuid=cast.alice.uuid, secret=cast.alice.secret).restorable()
    assert [entry["address"] for entry in cast.audit("restore.asked")] == ["127.0.0.1"]
