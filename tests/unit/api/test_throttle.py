"""Bad credentials are refused before the database is asked, and nobody else pays for it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from tests.support.api_cast import Cast, post
from tests.support.v1_client import Refused, V1Machine, V1Storage

from turku.api.fleet.identity import throttle
from turku.api.fleet.identity.throttle import Throttle
from turku.api.fleet.models import BadCredentialCount


class SteppedClock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic_seconds(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def statuses(act: Callable[[], object], times: int) -> list[int]:
    found = []
    for _ in range(times):
        try:
            act()
        except Refused as error:
            found.append(error.status)
        else:
            found.append(200)
    return found


def queries(act: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as captured:
        act()
    return len([query for query in captured.captured_queries if "SAVEPOINT" not in query["sql"]])


def test_an_address_is_refused_after_thirty_bad_credentials(cast: Cast) -> None:
    stranger = V1Machine(post)
    assert statuses(stranger.due, 40) == [403] * 30 + [429] * 10


def test_a_refused_request_asks_the_database_nothing(cast: Cast) -> None:
    stranger = V1Machine(post)
    statuses(stranger.due, 30)
    assert queries(lambda: statuses(stranger.due, 1)) == 0


def test_a_good_request_costs_nothing_more(cast: Cast) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    assert queries(cast.alice.due) == 1


@pytest.mark.parametrize("call", ["due", "restorable", "update_config", "update_config, bad auth", "rotate", "storage"])
def test_unknown_and_wrong_cost_the_same(cast: Cast, call: str) -> None:
    def act(uuid: str, storage: str) -> None:
        stranger = V1Machine(post, uuid=uuid, auth="bad" if "bad auth" in call else None)
        acts: dict[str, Callable[[], object]] = {
            "due": stranger.due,
            "restorable": stranger.restorable,
            "rotate": lambda: post(
                "machine_rotate", {"machine": {"uuid": uuid, "secret": stranger.secret}, "new_secret": "n" * 30}
            ),
            "storage": lambda: V1Storage(post, name=storage).due(uuid),
        }
        statuses(acts.get(call, lambda: stranger.update_config({})), 1)

    unknown = queries(lambda: act("00000000-0000-4000-8000-000000000000", "nobody"))
    assert queries(lambda: act(cast.alice.uuid, cast.bob.name)) == unknown > 0


def test_bad_requests_cost_less_than_good_ones(cast: Cast) -> None:
    stranger = V1Machine(post)
    counts = [queries(lambda: statuses(stranger.due, 1)) for _ in range(30)]
    assert sum(counts) / len(counts) < 2


def test_a_caller_that_has_authenticated_from_there_goes_on(cast: Cast) -> None:
    cast.alice.due()
    statuses(V1Machine(post).due, 40)
    assert statuses(cast.alice.due, 3) == [200] * 3
    assert statuses(cast.bob.update_config, 1) == [200]
    assert statuses(cast.machine().due, 1) == [429]


def test_guessing_at_a_neighbour_ends_with_the_others(cast: Cast) -> None:
    thief = V1Machine(post, uuid=cast.alice.uuid)
    assert 403 not in statuses(thief.due, 40)[31:]


def test_every_kind_of_bad_credential_counts(cast: Cast) -> None:
    acts = [
        lambda: V1Machine(post, auth="no such registration string").update_config({}),
        lambda: V1Storage(post, auth={"name": "x", "secret": "y"}).update_config(),
        lambda: V1Storage(post).due(cast.alice.uuid),
        lambda: V1Machine(post).restorable(),
        lambda: post_or_raise("machine_reenrol", {"code": "x", "secret": "y" * 30, "ssh_public_key": "z"}),
    ]
    found = [status for _ in range(8) for act in acts for status in statuses(act, 1)]
    assert found == [403] * 30 + [429] * 10


def post_or_raise(call: str, message: object) -> None:
    status, answer = post(call, message)
    if status != 200:
        raise Refused(status, answer)


def test_health_is_answered_all_the_same(cast: Cast) -> None:
    statuses(V1Machine(post).due, 40)
    assert post("health", {})[0] == 200


def test_the_refusal_says_how_long(cast: Cast) -> None:
    statuses(V1Machine(post).due, 30)
    message = {"machine": {"uuid": "00000000-0000-4000-8000-000000000000", "secret": "x"}}
    response = Client().post("/v1/agent_ping_checkin", message, content_type="application/json")
    assert response.status_code == 429
    assert 0 < int(response.headers["Retry-After"]) <= 60


def test_processes_refuse_together(db: None) -> None:
    clock = SteppedClock()
    workers = [
        Throttle("test", limit=lambda: 30, span=timedelta(minutes=1), report_every=5, clock=clock) for _ in range(4)
    ]
    tries = 0
    while open_workers := [worker for worker in workers if not worker.blocked_seconds("192.0.2.1")]:
        open_workers[tries % len(open_workers)].failed("192.0.2.1")
        tries += 1
        assert tries < 100
    assert tries <= 30 + 3 * 5
    assert not workers[0].blocked_seconds("192.0.2.2")
    clock.sleep(61)
    assert not any(worker.blocked_seconds("192.0.2.1") for worker in workers)


def test_a_few_failures_a_minute_are_nobodys_fault(db: None) -> None:
    clock = SteppedClock()
    throttled = Throttle("test", limit=lambda: 30, span=timedelta(minutes=1), report_every=5, clock=clock)
    for _ in range(500):
        throttled.failed("192.0.2.1")
        clock.sleep(4)
    assert not throttled.blocked_seconds("192.0.2.1")


def test_memory_and_table_stay_bounded(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "REMEMBERED_ADDRESSES", 10)
    clock = SteppedClock()
    throttled = Throttle("test", limit=lambda: 1, span=timedelta(minutes=1), clock=clock)
    for number in range(50):
        throttled.failed(f"192.0.2.{number}")
    assert len(throttled._blocked_until._values) == 10
    clock.sleep(2 * 24 * 3600)
    throttled.failed("192.0.2.1")
    assert BadCredentialCount.objects.count() == 1


def test_one_good_credential_does_not_push_others_out_of_memory(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "REMEMBERED_CALLERS", 10)
    throttled = Throttle("test", limit=lambda: 1, span=timedelta(minutes=1), clock=SteppedClock())
    throttled.succeeded("192.0.2.1", "machine alice", "right")
    for number in range(100):
        throttled.succeeded(f"2001:db8:0:{number:x}::1", "machine mallory", "hers")
    throttled.failed("192.0.2.1")
    assert throttled.blocked_seconds("192.0.2.1", "machine mallory", "hers")
    assert throttled.blocked_seconds("192.0.2.1", "machine alice", "wrong")
    assert not throttled.blocked_seconds("192.0.2.1", "machine alice", "right")
    for number in range(100):
        throttled.succeeded("192.0.2.2", f"machine {number}", "theirs")
    assert len(throttled._good_credentials._digests._values) == 10


def test_a_new_secret_takes_the_place_of_the_one_before(db: None) -> None:
    throttled = Throttle("test", limit=lambda: 1, span=timedelta(minutes=1), clock=SteppedClock())
    throttled.succeeded("192.0.2.1", "machine alice", "old")
    throttled.succeeded("192.0.2.1", "machine alice", "new")
    throttled.failed("192.0.2.1")
    assert throttled.blocked_seconds("192.0.2.1", "machine alice", "old")
    assert not throttled.blocked_seconds("192.0.2.1", "machine alice", "new")


def test_zero_switches_the_throttle_off(db: None) -> None:
    throttled = Throttle("test", limit=lambda: 0, span=timedelta(minutes=1))
    for _ in range(50):
        throttled.failed("192.0.2.1")
    assert not throttled.blocked_seconds("192.0.2.1")
    assert not BadCredentialCount.objects.exists()


def test_passwords_are_guessed_ten_times_at_most(db: None) -> None:
    User.objects.create_superuser("root", password="correct horse battery")
    found = [
        Client().post("/admin/login/", {"username": "root", "password": f"guess {number}"}).status_code
        for number in range(12)
    ]
    assert found == [200] * 10 + [429] * 2
    good = Client().post("/admin/login/", {"username": "root", "password": "correct horse battery"})
    assert good.status_code == 429
    assert Client().post("/admin/login/", {}, REMOTE_ADDR="192.0.2.7").status_code == 200
