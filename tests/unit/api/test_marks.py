"""Marks tell the truth: the worst of a machine and its sources, what a silent storage means, and when a backup is missing."""

from datetime import timedelta
from typing import Any

import pytest
from tests.support.api_cast import Cast

from turku.api.backups.models import Source
from turku.api.backups.operator_actions import back_up_now
from turku.api.fleet.models import Auth, Machine, Policy, Storage
from turku.api.status import fleet_health, fleet_marks, source_marks
from turku.core.clock import SYSTEM_CLOCK, SystemClock

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class Clock:
    """The coordinator's clock, moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = timedelta(0)
        real = SystemClock.now
        monkeypatch.setattr(SystemClock, "now", lambda clock: real(clock) + self.ahead)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def machine_mark(**moved: Any) -> str:
    """The mark so much later, when the storage was heard of."""
    now = SYSTEM_CLOCK.now() + timedelta(**moved)
    if moved:
        Storage.objects.update(date_checked_in=now)
    [machine] = fleet_marks.machines(now=now)
    return str(machine.mark)


def source_mark(name: str = "etc", **moved: Any) -> str:
    [source] = source_marks.sources(now=SYSTEM_CLOCK.now() + timedelta(**moved)).filter(name=name)
    return str(source.mark)


def seen(storage: bool = True) -> None:
    """Machine, and storage, were heard of in this moment."""
    Machine.objects.update(date_checked_in=SYSTEM_CLOCK.now())
    if storage:
        Storage.objects.update(date_checked_in=SYSTEM_CLOCK.now())


@pytest.mark.parametrize(
    ("change", "mark"),
    [
        ({"success": False}, "failed"),
        ({"quarantined": True}, "quarantined"),
        ({"fallback_count": 5}, "falling-back"),
        ({"date_expected": SYSTEM_CLOCK.now() - DAY}, "overdue"),
        ({"quarantined": True, "active": False}, "ok"),
    ],
)
def test_a_machine_has_the_mark_of_its_worst_source(cast: Cast, change: dict[str, Any], mark: str) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    assert machine_mark() == "ok"
    Source.objects.filter(name="etc").update(**change)
    assert machine_mark() == mark


def test_the_worst_of_several_counts(cast: Cast) -> None:
    cast.bob.failed(cast.alice.uuid, "etc")
    assert machine_mark() == "failed"
    Machine.objects.update(date_checked_in=SYSTEM_CLOCK.now() - DAY)
    assert machine_mark() == "failed"
    Source.objects.filter(name="home").update(quarantined=True)
    assert machine_mark() == "quarantined"


def test_a_silent_storage_marks_its_machines(cast: Cast) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    Storage.objects.update(date_checked_in=SYSTEM_CLOCK.now() - timedelta(minutes=31))
    assert machine_mark() == "storage-silent"
    assert "1 storage silent of 1 machine" in fleet_health.current_health(now=SYSTEM_CLOCK.now()).summary


def test_back_up_now_hides_no_overdue_source(cast: Cast, clock: Clock) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    clock.ahead = 3 * DAY
    seen()
    assert source_mark() == "overdue"
    assert back_up_now(Source.objects.all(), actor=_actor(), now=SYSTEM_CLOCK.now()) == 2
    assert source_mark() == "overdue"
    assert machine_mark() == "overdue"
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    assert source_mark() == "ok"


def _actor() -> Any:
    from turku.api.audit import log

    return log.COMMAND_LINE


def test_an_order_that_nobody_follows_is_overdue_too(cast: Cast, clock: Clock) -> None:
    Source.objects.update(frequency="monthly", longest_pause_days=31)
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    back_up_now(Source.objects.all(), actor=_actor(), now=SYSTEM_CLOCK.now())
    clock.ahead = 11 * HOUR
    seen()
    assert source_mark() == "overdue"


def test_a_schedule_that_changes_all_the_time_counts_as_its_rarest(cast: Cast, clock: Clock) -> None:
    cast.alice.update_config({"etc": {"path": "/etc", "frequency": "hourly"}})
    cast.bob.succeeded(cast.alice.uuid, "etc")
    for number in range(40):
        clock.ahead = number * HOUR
        cast.alice.update_config({"etc": {"path": "/etc", "frequency": f"daily, {(number + 3) % 24:02}00"}})
        cast.alice.update_config({"etc": {"path": "/etc", "frequency": "hourly"}})
    seen()
    assert source_mark() == "overdue"


def test_a_rarer_schedule_is_reckoned_from_the_last_good_backup(cast: Cast, clock: Clock) -> None:
    cast.alice.update_config({"etc": {"path": "/etc", "frequency": "hourly"}})
    cast.bob.succeeded(cast.alice.uuid, "etc")
    cast.alice.update_config({"etc": {"path": "/etc", "frequency": "monthly"}})
    assert source_mark(hours=12) == "ok"


def test_the_time_that_a_machine_may_be_away_is_a_matter_of_policy(cast: Cast) -> None:
    assert [machine_mark(minutes=minutes) for minutes in (59, 61)] == ["ok", "silent"]
    everyone = Policy.objects.create(silent_after_hours=2)
    assert [machine_mark(hours=hours) for hours in (1.9, 2.1)] == ["ok", "silent"]
    laptops = Policy.objects.create(auth=Auth.objects.get(name="machines"), silent_after_hours=336)
    assert [machine_mark(days=days) for days in (13.9, 14.1)] == ["ok", "silent"]
    own = Policy.objects.create(machine=Machine.objects.get(), silent_after_hours=5)
    assert [machine_mark(hours=hours) for hours in (4.9, 5.1)] == ["ok", "silent"]
    for policy in (own, laptops, everyone):
        policy.silent_after_hours = None
        policy.save()
    assert [machine_mark(minutes=minutes) for minutes in (59, 61)] == ["ok", "silent"]


def test_sources_of_a_machine_that_may_be_away_are_overdue_as_late(cast: Cast) -> None:
    cast.machine(unit_name="server").update_config({"srv": {"path": "/srv"}})
    Policy.objects.create(machine=Machine.objects.get(uuid=cast.alice.uuid), silent_after_hours=336)
    assert [source_mark(hours=11), source_mark("srv", hours=11)] == ["ok", "overdue"]
    assert [source_mark(days=13.9), source_mark(days=14.1)] == ["ok", "overdue"]


def test_a_machine_whose_backup_is_under_way_is_not_silent(cast: Cast) -> None:
    cast.alice.due()
    cast.bob.due(cast.alice.uuid)
    assert machine_mark(hours=2) == "ok"
    Machine.objects.update(date_checked_in=SYSTEM_CLOCK.now() - DAY)
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    assert machine_mark() == "ok"


@pytest.mark.parametrize("ahead", [40 * DAY, 3650 * DAY])
@pytest.mark.parametrize("call", ["agent", "storage"])
def test_a_clock_that_was_ahead_puts_no_backup_off(cast: Cast, clock: Clock, ahead: timedelta, call: str) -> None:
    added = SYSTEM_CLOCK.now() - 30 * DAY
    Source.objects.update(date_added=added)
    clock.ahead = ahead
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    clock.ahead = timedelta(0)
    seen()
    assert source_mark() == machine_mark() == "overdue"
    assert not fleet_health.current_health(now=SYSTEM_CLOCK.now()).is_healthy
    due = cast.alice.due() if call == "agent" else cast.bob.due(cast.alice.uuid)
    assert set(due) == {"etc", "home"}
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    assert source_mark() == machine_mark() == "ok"
    assert cast.alice.due() == {}


def test_a_due_time_planned_by_a_wrong_clock_keeps_to_the_schedule(cast: Cast, clock: Clock) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    Source.objects.update(date_next_backup=SYSTEM_CLOCK.now() + 3650 * DAY)
    assert cast.alice.due() == {}
    clock.ahead = DAY + HOUR
    assert set(cast.alice.due()) == {"etc", "home"}


def test_a_schedule_without_bound_keeps_its_moment(cast: Cast) -> None:
    cast.alice.update_config({"etc": {"path": "/etc", "frequency": "cron 0 0 29 2 *"}})
    cast.bob.succeeded(cast.alice.uuid, "etc")
    assert cast.alice.due() == {}
    assert source_mark() == "ok"


def test_a_machine_or_storage_seen_in_the_future_is_silent_now(cast: Cast, clock: Clock) -> None:
    clock.ahead = 3650 * DAY
    cast.alice.due()
    cast.bob.update_config()
    clock.ahead = timedelta(0)
    assert [str(row.mark) for row in fleet_marks.storages(now=SYSTEM_CLOCK.now())] == ["silent"]
    assert machine_mark() == "silent"
    cast.bob.update_config()
    cast.alice.due()
    assert [str(row.mark) for row in fleet_marks.storages(now=SYSTEM_CLOCK.now())] == ["ok"]
    Source.objects.update(date_next_backup=SYSTEM_CLOCK.now(), date_expected=SYSTEM_CLOCK.now())
    assert machine_mark() == "ok"


def test_a_mute_lasts_no_longer_than_a_mute_can(cast: Cast) -> None:
    Machine.objects.update(date_muted_until=SYSTEM_CLOCK.now() + 3650 * DAY, mute_reason="x")
    assert machine_mark() == "ok"


def test_a_lease_from_the_future_holds_no_slot(cast: Cast, clock: Clock) -> None:
    cast.bob.update_config(slots=1)
    other = cast.machine(unit_name="web-1")
    other.update_config({"etc": {"path": "/etc"}})
    clock.ahead = 3650 * DAY
    assert cast.alice.due()
    assert cast.bob.due(cast.alice.uuid)
    assert other.due() == {}
    clock.ahead = timedelta(0)
    Machine.objects.filter(uuid=cast.alice.uuid).update(date_checked_in=SYSTEM_CLOCK.now() - DAY)
    assert set(other.due()) == {"etc"}
    assert set(cast.bob.due(other.uuid)) == {"etc"}
    [mark] = fleet_marks.machines(now=SYSTEM_CLOCK.now()).filter(uuid=cast.alice.uuid).values_list("mark", flat=True)
    assert mark == "silent"
