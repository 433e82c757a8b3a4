"""Leases on slots and their queue, with a clock of the test's own, and the calls of machines and storages."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from tests.support.api_cast import Cast, post
from tests.support.v1_client import V1Storage

from turku.api.audit.models import AuditEntry
from turku.api.backups.models import Source
from turku.api.fleet.models import Machine, Storage
from turku.api.queue import capacity, leases, waiting_machines
from turku.api.queue.models import LONGEST_LEASE, Slot, StorageSlots, WaitingMachine
from turku.core.clock import SYSTEM_CLOCK
from turku.policy.queue import DEFAULT_SLOTS, Lane

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def bob(cast: Cast) -> Storage:
    """A storage with four slots, one of them for first backups."""
    cast.bob.update_config(slots=4)
    return Storage.objects.get()


def machine(
    cast: Cast, name: str, *, frequency: str = "daily", due: datetime = NOON - MINUTE, is_first: bool = False
) -> Machine:
    """A machine with one source, ``etc``."""
    client = cast.machine(unit_name=name)
    client.update_config({"etc": {"path": "/etc", "frequency": frequency}})
    Source.objects.filter(machine__uuid=client.uuid).update(
        date_next_backup=due, date_last_backed_up=None if is_first else due - timedelta(days=1)
    )
    return Machine.objects.select_related("storage").get(uuid=client.uuid)


def due(who: Machine) -> list[Source]:
    return list(who.sources.order_by("name"))


def ask(who: Machine, now: datetime) -> list[str]:
    """Return the names of the sources that an agent gets."""
    return [source.name for source in leases.reserve(who, due(who), now=now)]


def come(who: Machine, bob: Storage, now: datetime, *, sends_heartbeats: bool = True) -> list[str]:
    """Return the names of the sources that a storage gets when the agent has come."""
    return [source.name for source in leases.begin(who, bob, due(who), sends_heartbeats=sends_heartbeats, now=now)]


def holders(now: datetime) -> list[str]:
    return sorted(str(slot.machine) for slot in Slot.objects.all() if slot.is_held(now))


def fill(cast: Cast, bob: Storage, now: datetime, *, count: int = 3) -> list[Machine]:
    """Machines that run, in all regular slots."""
    running = [machine(cast, f"running-{number}", due=now - 2 * HOUR) for number in range(count)]
    for each in running:
        assert ask(each, now) == ["etc"]
        assert come(each, bob, now) == ["etc"]
    return running


def test_a_machine_that_gets_due_sources_has_a_slot_reserved_for_three_minutes(cast: Cast, bob: Storage) -> None:
    web = machine(cast, "web")
    assert ask(web, NOON) == ["etc"]
    assert holders(NOON + leases.RESERVED_FOR - timedelta(seconds=1)) == ["web"]
    assert holders(NOON + leases.RESERVED_FOR) == []


def test_asking_again_does_not_prolong_a_reservation(cast: Cast, bob: Storage) -> None:
    web = machine(cast, "web")
    ask(web, NOON)
    assert ask(web, NOON + 2 * MINUTE) == ["etc"]
    assert holders(NOON + leases.RESERVED_FOR) == []


def test_a_session_lives_by_its_heartbeats_and_frees_its_slot_four_minutes_after_the_last(
    cast: Cast, bob: Storage
) -> None:
    web = machine(cast, "web")
    ask(web, NOON)
    come(web, bob, NOON)
    for minutes in range(1, 200):
        assert leases.heartbeat(web, bob, now=NOON + minutes * MINUTE)
    last = NOON + 199 * MINUTE
    assert holders(last + 3 * MINUTE) == ["web"]
    # Killed: within five minutes of its last sign of life.
    assert holders(last + 4 * MINUTE) == []


def test_a_killed_session_keeps_nobody_waiting(cast: Cast, bob: Storage) -> None:
    fill(cast, bob, NOON)
    web = machine(cast, "web")
    assert ask(web, NOON + MINUTE) == []
    assert ask(web, NOON + 5 * MINUTE) == ["etc"]
    assert come(web, bob, NOON + 5 * MINUTE) == ["etc"]


def test_a_storage_without_heartbeats_has_a_long_lease_that_its_report_ends(cast: Cast, bob: Storage) -> None:
    web = machine(cast, "web")
    ask(web, NOON)
    come(web, bob, NOON, sends_heartbeats=False)
    assert holders(NOON + 11 * HOUR) == ["web"]
    assert holders(NOON + LONGEST_LEASE) == []
    web.sources.update(date_next_backup=NOON + timedelta(days=1))
    leases.free_finished_lanes(web, bob, now=NOON + HOUR)
    assert holders(NOON + HOUR) == []


def test_a_machine_that_asks_again_shows_that_its_session_without_heartbeats_is_over(cast: Cast, bob: Storage) -> None:
    web = machine(cast, "web")
    ask(web, NOON)
    come(web, bob, NOON, sends_heartbeats=False)
    assert ask(web, NOON + HOUR) == ["etc"]
    assert holders(NOON + HOUR + leases.RESERVED_FOR) == []


def test_asking_again_does_not_end_a_session_that_sends_heartbeats(cast: Cast, bob: Storage) -> None:
    web = machine(cast, "web")
    ask(web, NOON)
    come(web, bob, NOON)
    assert ask(web, NOON + MINUTE) == ["etc"]
    (slot,) = Slot.objects.filter(machine=web)
    assert slot.date_begun == NOON
    assert slot.date_expires == NOON + leases.HEARTBEAT_LEASE


def test_never_more_than_the_slots_are_given_away(cast: Cast, bob: Storage) -> None:
    machines = [machine(cast, f"web-{number}") for number in range(8)]
    assert sum(ask(each, NOON) == ["etc"] for each in machines) == 3
    assert sum(come(each, bob, NOON) == ["etc"] for each in machines) == 3
    assert len(holders(NOON)) == 3


def test_a_session_without_a_reservation_gets_a_slot_where_one_is_free(cast: Cast, bob: Storage) -> None:
    running = fill(cast, bob, NOON)
    web = machine(cast, "web")
    assert come(web, bob, NOON) == []
    leases.end(running[0], bob, now=NOON)
    assert come(web, bob, NOON) == ["etc"]


def test_the_report_of_the_last_source_frees_the_slot(cast: Cast, bob: Storage) -> None:
    Source.objects.update(date_last_backed_up=NOON)
    alice = cast.alice
    assert set(alice.due()) == set(cast.bob.due(alice.uuid)) == {"etc", "home"}
    cast.bob.succeeded(alice.uuid, "etc")
    assert Slot.objects.filter(machine__uuid=alice.uuid).count() == 1
    cast.bob.failed(alice.uuid, "home")
    assert not Slot.objects.exclude(machine=None).exists()


def test_first_backups_and_the_others_never_wait_for_each_other(cast: Cast, bob: Storage) -> None:
    new = [machine(cast, f"new-{number}", is_first=True) for number in range(3)]
    assert [ask(each, NOON) for each in new] == [["etc"], [], []]
    fill(cast, bob, NOON)
    assert ask(machine(cast, "web"), NOON) == []
    leases.end(new[0], bob, now=NOON)
    assert ask(new[1], NOON + MINUTE) == ["etc"]


def test_a_new_source_of_a_machine_waits_while_its_others_are_backed_up(cast: Cast, bob: Storage) -> None:
    ask(machine(cast, "new", is_first=True), NOON)
    alice = Machine.objects.select_related("storage").get(uuid=cast.alice.uuid)
    alice.sources.update(date_next_backup=NOON)
    alice.sources.filter(name="etc").update(date_last_backed_up=NOON - HOUR)
    assert ask(alice, NOON) == ["etc"]
    assert come(alice, bob, NOON) == ["etc"]
    alice.sources.filter(name="etc").update(date_next_backup=NOON + HOUR)
    leases.free_finished_lanes(alice, bob, now=NOON + MINUTE)
    assert holders(NOON + MINUTE) == ["new"]


def test_a_machine_with_both_kinds_holds_one_slot_of_each_and_frees_each_when_it_is_done(
    cast: Cast, bob: Storage
) -> None:
    alice = Machine.objects.select_related("storage").get(uuid=cast.alice.uuid)
    alice.sources.update(date_next_backup=NOON)
    alice.sources.filter(name="etc").update(date_last_backed_up=NOON - HOUR)
    assert ask(alice, NOON) == come(alice, bob, NOON) == ["etc", "home"]
    assert {slot.lane for slot in Slot.objects.filter(machine=alice)} == {"first", "regular"}
    alice.sources.filter(name="etc").update(date_next_backup=NOON + HOUR)
    leases.free_finished_lanes(alice, bob, now=NOON + MINUTE)
    assert {slot.lane for slot in Slot.objects.filter(machine=alice)} == {"first"}


def test_the_machine_that_was_due_first_goes_first(cast: Cast, bob: Storage) -> None:
    (first, *_others) = fill(cast, bob, NOON)
    later = machine(cast, "later", due=NOON - HOUR)
    earlier = machine(cast, "earlier", due=NOON - 2 * HOUR)
    assert ask(later, NOON) == ask(earlier, NOON) == []
    leases.end(first, bob, now=NOON + 2 * MINUTE)
    assert ask(later, NOON + 2 * MINUTE) == []
    assert ask(earlier, NOON + 2 * MINUTE) == ["etc"]


def test_an_hourly_source_goes_before_a_daily_one_that_is_as_late(cast: Cast, bob: Storage) -> None:
    (first, *_others) = fill(cast, bob, NOON)
    daily, hourly = machine(cast, "daily"), machine(cast, "hourly", frequency="hourly")
    assert ask(daily, NOON) == ask(hourly, NOON) == []
    leases.end(first, bob, now=NOON)
    assert ask(daily, NOON) == []
    assert ask(hourly, NOON) == ["etc"]


def test_an_idle_slot_goes_to_the_machine_that_asks(cast: Cast, bob: Storage) -> None:
    (first, *_others) = fill(cast, bob, NOON)
    head = machine(cast, "head", due=NOON - 3 * HOUR)
    others = [machine(cast, f"other-{number}", due=NOON - HOUR + number * MINUTE) for number in range(4)]
    for each in (head, *others):
        assert ask(each, NOON) == []
    leases.end(first, bob, now=NOON)
    assert ask(others[3], NOON + timedelta(seconds=30)) == []
    assert ask(others[3], NOON + timedelta(seconds=100)) == ["etc"]


def test_a_slot_of_a_long_session_is_kept_for_the_head_until_it_must_have_asked(cast: Cast, bob: Storage) -> None:
    (first, *others) = fill(cast, bob, NOON)
    later = NOON + 2 * HOUR
    for each in (first, *others):
        leases.heartbeat(each, bob, now=later)
    head, other = machine(cast, "head", due=NOON - 3 * HOUR), machine(cast, "other", due=NOON)
    assert ask(head, later) == ask(other, later) == []
    leases.end(first, bob, now=later)
    assert ask(other, later + 3 * MINUTE) == []
    for each in others:
        leases.heartbeat(each, bob, now=later + 3 * MINUTE)
    assert ask(other, later + 6 * MINUTE) == ["etc"]


def test_nobody_waits_for_a_machine_that_does_not_ask_any_more(cast: Cast, bob: Storage) -> None:
    (first, *others) = fill(cast, bob, NOON)
    gone, here = machine(cast, "gone", due=NOON - 3 * HOUR), machine(cast, "here")
    assert ask(gone, NOON) == ask(here, NOON) == []
    later = NOON + 12 * MINUTE
    for each in others:
        leases.heartbeat(each, bob, now=later)
    leases.heartbeat(first, bob, now=later)
    leases.end(first, bob, now=later)
    assert ask(here, later) == ["etc"]


def test_a_place_in_the_queue_is_kept_while_the_machine_asks(cast: Cast, bob: Storage) -> None:
    running = fill(cast, bob, NOON)
    web = machine(cast, "web")
    for minutes in range(0, 60, 5):
        for each in running:
            leases.heartbeat(each, bob, now=NOON + minutes * MINUTE)
        assert ask(web, NOON + minutes * MINUTE) == []
    place = WaitingMachine.objects.get(machine=web)
    assert (place.date_queued, place.date_asked) == (NOON, NOON + 55 * MINUTE)
    assert place.date_due == NOON - MINUTE
    assert place.date_deadline == NOON - MINUTE + 6 * HOUR
    leases.end(running[0], bob, now=NOON + 56 * MINUTE)
    assert ask(web, NOON + 56 * MINUTE) == ["etc"]
    assert not WaitingMachine.objects.filter(machine=web).exists()


def test_a_machine_that_lets_a_slot_lapse_goes_behind_those_that_wait(cast: Cast, bob: Storage) -> None:
    running = fill(cast, bob, NOON, count=2)
    hog = machine(cast, "hog", frequency="hourly", due=NOON - 5 * HOUR)
    web = machine(cast, "web")
    assert ask(hog, NOON) == ["etc"]
    assert ask(web, NOON + MINUTE) == []
    lapsed = NOON + leases.RESERVED_FOR
    for each in running:
        leases.heartbeat(each, bob, now=lapsed)
    # It asks first, and again and again.
    assert ask(hog, lapsed) == []
    assert ask(web, lapsed) == ["etc"]
    assert come(web, bob, lapsed) == ["etc"]
    assert WaitingMachine.objects.get(machine=hog).date_no_show is not None
    other = machine(cast, "other")
    assert ask(other, lapsed) == []
    leases.end(web, bob, now=lapsed + MINUTE)
    assert ask(hog, lapsed + MINUTE) == []
    assert ask(other, lapsed + MINUTE) == ["etc"]


def test_without_others_a_machine_that_let_its_slot_lapse_gets_it_again(cast: Cast, bob: Storage) -> None:
    web = machine(cast, "web")
    for minutes in range(0, 30, 5):
        assert ask(web, NOON + minutes * MINUTE) == ["etc"]
    assert len(holders(NOON + 25 * MINUTE)) == 1


def test_a_machine_at_another_storage_frees_its_slot_at_the_former_one(cast: Cast, bob: Storage) -> None:
    web = machine(cast, "web")
    assert ask(web, NOON) == ["etc"]
    cast.storage("other").update_config()
    web.storage = Storage.objects.get(name="other")
    web.save()
    assert ask(web, NOON) == ["etc"]
    (slot,) = Slot.objects.filter(machine=web)
    assert slot.storage.name == "other"


def test_a_heartbeat_of_a_session_that_lost_its_slot_says_so_and_takes_none(cast: Cast, bob: Storage) -> None:
    running = fill(cast, bob, NOON)
    others = [machine(cast, f"web-{number}") for number in range(3)]
    for each in others:
        assert ask(each, NOON + 4 * MINUTE) == ["etc"]
    assert not leases.heartbeat(running[0], bob, now=NOON + 5 * MINUTE)
    assert len(holders(NOON + 5 * MINUTE)) == 3


@pytest.mark.parametrize(
    ("operator", "reported", "first", "expected"),
    [
        (None, None, None, (24, 8)),
        (None, 8, None, (6, 2)),
        (6, 8, None, (5, 1)),
        (10, 8, None, (6, 2)),
        (8, None, 5, (3, 5)),
        (1, None, None, (1, 0)),
        (4, None, 4, (3, 1)),
    ],
)
def test_the_smaller_number_counts_of_operator_and_storage(
    cast: Cast, operator: int | None, reported: int | None, first: int | None, expected: tuple[int, int]
) -> None:
    settings = StorageSlots.objects.get()
    settings.slots, settings.reported_slots, settings.first_slots = operator, reported, first
    settings.save()
    capacity.update_slots(settings)
    counts = tuple(Slot.objects.filter(lane=lane, retired=False).count() for lane in (Lane.REGULAR, Lane.FIRST))
    assert counts == expected
    assert DEFAULT_SLOTS == 32


def test_a_single_slot_is_for_both_kinds(cast: Cast) -> None:
    cast.bob.update_config(slots=1)
    bob = Storage.objects.get()
    new, old = machine(cast, "new", is_first=True), machine(cast, "old")
    assert ask(new, NOON) == come(new, bob, NOON) == ["etc"]
    assert ask(old, NOON) == []
    leases.free_finished_lanes(new, bob, now=NOON)
    assert holders(NOON) == ["new"], "its source is not reported yet"
    new.sources.update(date_next_backup=NOON + HOUR)
    leases.free_finished_lanes(new, bob, now=NOON)
    assert ask(old, NOON) == ["etc"]


def test_fewer_slots_let_those_that_run_end_and_give_away_no_more(cast: Cast, bob: Storage) -> None:
    running = fill(cast, bob, NOON)
    cast.bob.update_config(slots=2)
    assert len(holders(NOON)) == 3
    leases.end(running[2], bob, now=NOON)
    leases.end(running[1], bob, now=NOON)
    web = machine(cast, "web")
    assert ask(web, NOON) == []
    leases.end(running[0], bob, now=NOON)
    assert ask(web, NOON) == ["etc"]
    cast.bob.update_config(slots=4)
    assert ask(machine(cast, "other"), NOON) == ["etc"]


def test_a_changed_number_of_a_storage_is_on_the_audit_log_once(cast: Cast) -> None:
    for slots in (8, 8, 16):
        cast.bob.update_config(slots=slots)
    cast.bob.update_config()
    entries = AuditEntry.objects.filter(action="storage.slots").order_by("id")
    assert [(entry.old["reported_slots"], entry.new["reported_slots"]) for entry in entries] == [
        (None, 8),
        (8, 16),
        (16, None),
    ]


@pytest.mark.parametrize("slots", [0, -1, 1001, "many", 2.5])
def test_an_impossible_number_is_refused(cast: Cast, slots: Any) -> None:
    message = {"storage": {"name": "primary", "secret": cast.bob.secret, "slots": slots}}
    assert post("storage_update_config", message)[0] == 400


def test_a_machine_that_is_long_gone_is_forgotten(cast: Cast, bob: Storage) -> None:
    fill(cast, bob, NOON)
    ask(machine(cast, "web"), NOON)
    waiting_machines.remove_stale(bob, now=NOON + 20 * MINUTE)
    assert WaitingMachine.objects.count() == 1
    waiting_machines.remove_stale(bob, now=NOON + 25 * MINUTE)
    assert WaitingMachine.objects.count() == 0


def heartbeat(by: V1Storage, uuid: str, **fields: Any) -> tuple[int, Any]:
    message = {"storage": {"name": by.name, "secret": by.secret}, "machine": {"uuid": uuid}, **fields}
    response = Client().post("/v2/storage_heartbeat", json.dumps(message), content_type="application/json")
    return response.status_code, json.loads(response.content)


def test_the_call_prolongs_and_ends_a_lease(cast: Cast) -> None:
    uuid = cast.alice.uuid
    assert heartbeat(cast.bob, uuid) == (200, {"leased": False})
    cast.alice.due()
    assert heartbeat(cast.bob, uuid) == (200, {"leased": False}), "a reservation is none"
    cast.bob.due(uuid)
    assert heartbeat(cast.bob, uuid) == (200, {"leased": True})
    assert heartbeat(cast.bob, uuid, ended=True) == (200, {"leased": False})
    assert not Slot.objects.exclude(machine=None).exists()


def test_a_session_that_goes_on_lets_its_machine_be_seen_and_nothing_else_does(cast: Cast) -> None:
    uuid = cast.alice.uuid
    cast.alice.due()
    long_ago = SYSTEM_CLOCK.now() - timedelta(days=1)
    Machine.objects.update(date_checked_in=long_ago)
    heartbeat(cast.bob, uuid)
    assert Machine.objects.get().date_checked_in == long_ago
    cast.bob.due(uuid)
    heartbeat(cast.bob, uuid)
    seen = Machine.objects.get().date_checked_in
    assert seen is not None
    assert seen > long_ago


@pytest.mark.parametrize("changes", [{"machine": {}}, {"machine": {"uuid": "x"}}, {"storage": 5}, {"ended": "yes"}])
def test_a_malformed_heartbeat_is_refused(cast: Cast, changes: dict[str, Any]) -> None:
    assert heartbeat(cast.bob, cast.alice.uuid, **changes)[0] == 400


def test_another_storage_can_neither_prolong_nor_end_it(cast: Cast) -> None:
    other = cast.storage("other")
    other.update_config()
    uuid = cast.alice.uuid
    cast.alice.due()
    cast.bob.due(uuid)
    assert heartbeat(other, uuid, ended=True)[0] == heartbeat(other, uuid)[0] == 404
    cast.bob.secret = "x" * 30
    assert heartbeat(cast.bob, uuid, ended=True)[0] == 403
    assert Slot.objects.exclude(machine=None).count() == 1


def sends(cast: Cast, values: Sequence[Any]) -> list[timedelta]:
    found = []
    for value in values:
        message = {
            "storage": {"name": cast.bob.name, "secret": cast.bob.secret},
            "machine": {"uuid": cast.alice.uuid},
            **value,
        }
        assert post("storage_ping_checkin", message)[0] == 200
        slot = Slot.objects.exclude(machine=None).get()
        assert slot.date_expires is not None
        assert slot.date_begun is not None
        found.append(slot.date_expires - slot.date_begun)
    return found


def test_a_storage_says_whether_it_sends_heartbeats(cast: Cast) -> None:
    assert sends(cast, [{}, {"sends_heartbeats": True}]) == [LONGEST_LEASE, leases.HEARTBEAT_LEASE]
