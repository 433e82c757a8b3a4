"""The operator's floor, the audit log, new identities and the throttle, on both databases."""

import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from tests.support.coordinator import Coordinator
from tests.support.v1_client import Post, Refused, V1Machine, V1Storage, ask, new_ssh_key

from turku.errors import CommandFailed

IMPORTS = "from turku.api.audit.models import *; from turku.api.fleet.models import *; from turku.api.backups.models import *; "


def operator(coordinator: Coordinator, statements: str) -> str:
    return coordinator.manage("shell", "--no-imports", "-c", IMPORTS + statements)


@pytest.fixture
def post(coordinator: Coordinator) -> Post:
    return coordinator.post


@pytest.fixture
def storage(coordinator: Coordinator, post: Post) -> V1Storage:
    """A storage that takes the next machine, and no others."""
    storage = V1Storage(post, auth=coordinator.create_auth("storage_reg", name=f"s {uuid.uuid4()}"))
    storage.name = f"storage-{uuid.uuid4().hex[:8]}"
    storage.update_config(space_available=1e12)
    return storage


@pytest.fixture
def machine(coordinator: Coordinator, post: Post, storage: V1Storage) -> V1Machine:
    machine = V1Machine(post, auth=coordinator.create_auth("machine_reg", name=f"m {uuid.uuid4()}"))
    machine.update_config({"etc": {"path": "/etc", "retention": "last 30 days"}})
    storage.update_config(space_available=0)
    return machine


def test_weakening_is_held_back_and_the_floor_is_united(
    coordinator: Coordinator, machine: V1Machine, storage: V1Storage
) -> None:
    for number in (3, 2, 1):
        machine.update_config({"etc": {"path": "/etc", "retention": f"last {number} snapshots", "exclude": ["*"]}})
    assert "last 36500 days" in storage.due(machine.uuid)["etc"]["retention"]
    name = f"Machine.objects.get(uuid='{machine.uuid}')"
    operator(coordinator, f"Policy.objects.create(machine={name}, retention_floor='last 9 days', quota_bytes=2**40)")
    operator(
        coordinator,
        f"SourceChange.objects.filter(source__machine={name}).update(date_effective='2020-01-01T00:00:00+00:00')",
    )
    order = storage.due(machine.uuid)["etc"]
    assert order["retention"] == "last 1 snapshot, last 9 days"
    assert (order["retention_floor"], order["quota_bytes"]) == ("last 9 days", 2**40)


def test_there_is_one_policy_for_all_machines(coordinator: Coordinator) -> None:
    operator(coordinator, "Policy.objects.create()")
    with pytest.raises(CommandFailed, match="ended with exit code"):
        operator(coordinator, "Policy.objects.create()")
    operator(coordinator, "Policy.objects.filter(machine=None, auth=None).delete()")


@pytest.mark.parametrize("act", ["update(actor='nobody')", "delete()"])
def test_the_database_refuses_to_change_the_audit_log(coordinator: Coordinator, machine: V1Machine, act: str) -> None:
    with pytest.raises(CommandFailed) as caught:
        operator(coordinator, f"AuditEntry.objects.filter(actor='{machine.uuid}').{act}")
    assert "append-only" in f"{caught.value.message} {caught.value.details}"
    assert operator(coordinator, f"print(AuditEntry.objects.filter(actor='{machine.uuid}').count())").strip() == "2"


def test_a_machine_returns_with_a_code(coordinator: Coordinator, machine: V1Machine, post: Post) -> None:
    code = coordinator.manage("machine", "re-enrol", machine.uuid, "--raw").strip()
    new = V1Machine(post)
    message = {"code": code, "secret": new.secret, "ssh_public_key": new.ssh_public_key}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask(post, "machine_reenrol", message), range(8)))
    assert answers == [{"machine": {"uuid": machine.uuid}}] * 8
    new.uuid = machine.uuid
    assert set(new.due()) == {"etc"}


def test_rotations_at_the_same_moment_make_one(machine: V1Machine, storage: V1Storage, post: Post) -> None:
    message = {
        "machine": {"uuid": machine.uuid, "secret": machine.secret},
        "new_secret": "n" * 30,
        "new_ssh_public_key": new_ssh_key(),
    }
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: ask(post, "machine_rotate", message), range(8))) == [{}] * 8
    machine.secret = "n" * 30
    assert set(machine.due()) == {"etc"}
    sent = {"storage": {"name": storage.name, "secret": storage.secret}, "new_secret": "o" * 30}
    assert ask(post, "storage_rotate", sent) == ask(post, "storage_rotate", sent) == {}
    storage.secret = "o" * 30
    assert set(storage.update_config(space_available=0)) == {machine.uuid}


def test_an_address_of_many_bad_credentials_is_refused(coordinator: Coordinator, machine: V1Machine) -> None:
    def guess(number: int) -> int:
        return requests.post(
            f"{coordinator.url}/agent_ping_checkin",
            json={"machine": {"uuid": machine.uuid, "secret": f"guess {number:020}"}},
            headers={"X-Forwarded-For": "203.0.113.7"},
            timeout=30,
        ).status_code

    with ThreadPoolExecutor(4) as pool:
        statuses = Counter(pool.map(guess, range(80)))
    assert set(statuses) == {403, 429}
    # Each of two workers and of four callers may have five failures that the others were not told of.
    assert statuses[403] <= 30 + 5 * (2 + 4)
    assert set(machine.due()) == {"etc"}


def test_another_secret_is_not_taken_for_a_machine_in_the_race(machine: V1Machine, post: Post) -> None:
    thief = V1Machine(post, auth=machine.auth, uuid=machine.uuid)
    with pytest.raises(Refused) as caught:
        thief.update_config({})
    assert caught.value.status == 403
