"""N2: a machine that proved itself is answered from behind a blocked address, whoever calls in its name meanwhile."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.attacks.test_n2_guessing import from_address, throttled
from tests.support.coordinator import Coordinator
from tests.support.http_cast import HttpCast, status_of
from tests.support.v1_client import V1Machine, V1Storage

LIMIT = 30
WORKERS = 3


@pytest.fixture(scope="module", params=[1, WORKERS], ids=["one worker", "several workers"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    with throttled(tmp_path_factory.mktemp("guarded") / "state", request.param) as running:
        yield running


class Network:
    """Machines behind one router, one of them the attacker's."""

    def __init__(self, coordinator: Coordinator, address: str) -> None:
        cast = HttpCast.introduce(coordinator)
        self.post = from_address(coordinator, address)
        self.alice = V1Machine(self.post, uuid=cast.alice.uuid, secret=cast.alice.secret)
        self.bob = V1Storage(self.post, name=cast.bob.name, secret=cast.bob.secret)

    def all_prove_themselves(self) -> None:
        """Each often enough to be known to every worker: the kernel chooses who answers, of those who are not busy."""

        def once(_number: int) -> None:
            self.alice.due()
            self.bob.due(self.alice.uuid)

        with ThreadPoolExecutor(3 * WORKERS) as pool:
            list(pool.map(once, range(75)))

    def strangers_fail(self, count: int = 8 * LIMIT) -> None:
        for number in range(count):
            status_of(V1Machine(self.post, secret=f"guess {number:030}").due)

    def fail_in_their_names(self, count: int) -> Counter[int]:
        statuses: Counter[int] = Counter()
        for number in range(count):
            guess = f"guess {number:030}"
            for uuid in (self.alice.uuid, self.alice.uuid.upper()):
                statuses[status_of(V1Machine(self.post, uuid=uuid, secret=guess).due)] += 1
            guessing = V1Storage(self.post, name=self.bob.name, secret=guess)
            statuses[status_of(lambda storage=guessing: storage.due(self.alice.uuid))] += 1
        return statuses

    def answers(self) -> set[int]:
        due = (self.alice.due, lambda: self.bob.due(self.alice.uuid))
        return {status_of(act) for _ in range(20) for act in due}


def test_n2_requests_in_its_name_do_not_take_the_exemption_away(guarded: Coordinator) -> None:
    network = Network(guarded, "203.0.113.11")
    network.all_prove_themselves()
    network.strangers_fail()
    assert network.answers() == {200}
    network.fail_in_their_names(20)
    assert network.answers() == {200}


def test_n2_nor_do_those_that_came_before_the_address_was_blocked(guarded: Coordinator) -> None:
    network = Network(guarded, "203.0.113.12")
    network.all_prove_themselves()
    network.fail_in_their_names(4 * LIMIT)
    assert network.answers() == {200}


def test_n2_nobody_shares_in_the_exemption_by_its_name(guarded: Coordinator) -> None:
    network = Network(guarded, "203.0.113.13")
    network.all_prove_themselves()
    network.strangers_fail()
    # A worker that was seldom chosen may still answer the few guesses that it has not yet told the others.
    assert network.fail_in_their_names(40)[403] <= 5 * WORKERS
    assert network.fail_in_their_names(40)[429] >= 3 * 40 - 5


def test_n2_nobody_else_comes_in_with_the_secret_of_one_who_may(guarded: Coordinator) -> None:
    network = Network(guarded, "203.0.113.14")
    network.all_prove_themselves()
    network.strangers_fail()
    posing = V1Machine(network.post, secret=network.alice.secret)
    assert {status_of(posing.due) for _ in range(10)} <= {429, 403}
    assert status_of(posing.due) == 429
