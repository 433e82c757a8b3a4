"""The operator's floor: which policy counts, what storages are told, when a weakening change takes effect."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError
from django.test import Client
from django.urls import reverse
from tests.support.api_cast import Cast

from turku.api.backups.models import Source, SourceChange
from turku.api.fleet import policies
from turku.api.fleet.models import Auth, Machine, Policy
from turku.core.clock import SYSTEM_CLOCK
from turku.policy import floor

LONG = "last 30 days, earliest of 12 months"
KEEP_ALL = floor.KEEP_ALL.text


def order(cast: Cast, name: str = "etc") -> dict[str, Any]:
    """Return the order to the storage, which the agent gets, too."""
    ordered: dict[str, Any] = cast.bob.due(cast.alice.uuid)[name]
    assert cast.alice.due()[name] == cast.alice.restorable()[name] == ordered
    return ordered


def declare(cast: Cast, **options: Any) -> None:
    cast.alice.update_config({"etc": {"path": "/etc", **options}, "home": {"path": "/home"}})


def pass_delay() -> None:
    SourceChange.objects.update(date_effective=SYSTEM_CLOCK.now() - timedelta(seconds=1))


def test_without_policies_orders_are_those_of_the_contract(cast: Cast) -> None:
    assert not {"retention_floor", "allowed_snapshot_modes", "quota_bytes"} & set(order(cast))


def test_the_most_specific_policy_wins_field_by_field(cast: Cast) -> None:
    auth, machine = Auth.objects.get(name="machines"), Machine.objects.get()
    Policy.objects.create(retention_floor="last 1 day", quota_bytes=1, delay_hours=1, weakening_allowed=True)
    Policy.objects.create(auth=auth, retention_floor="last 2 days", quota_bytes=2)
    Policy.objects.create(machine=machine, retention_floor="last 3 days", weakening_allowed=False)
    Policy.objects.create(auth=Auth.objects.get(name="storages"), retention_floor="last 9 days", quota_bytes=9)
    floor = policies.floor_of(machine)
    assert floor == policies.Floor("last 3 days", (), 2, timedelta(hours=1), weakening_allowed=False)


def test_there_is_one_policy_for_each_scope(cast: Cast) -> None:
    Policy.objects.create()
    with pytest.raises(IntegrityError):
        Policy.objects.create()


def test_a_policy_is_for_an_auth_or_a_machine(cast: Cast) -> None:
    with pytest.raises(IntegrityError):
        Policy.objects.create(auth=Auth.objects.all()[0], machine=Machine.objects.get())


def test_the_floor_is_united_with_the_machines_rules(cast: Cast) -> None:
    Policy.objects.create(retention_floor="last 14 days, earliest of 3 months", quota_bytes=10**12)
    ordered = order(cast)
    assert ordered["retention"] == "last 14 days, earliest of 3 months"
    assert ordered["retention_floor"] == "last 14 days, earliest of 3 months"
    assert ordered["quota_bytes"] == 10**12
    declare(cast, retention="last 30 days")
    assert order(cast)["retention"] == "last 30 days, earliest of 3 months"


def test_a_mode_that_is_not_allowed_becomes_the_default_one(cast: Cast) -> None:
    Policy.objects.create(allowed_snapshot_modes=["link-dest"], delay_hours=0)
    for options in ({"snapshot_mode": "none"}, {"large_rotating_files": True}, {"large_modifying_files": True}):
        declare(cast, **options)
        assert order(cast)["snapshot_mode"] == "link-dest", options
    declare(cast)
    assert order(cast)["snapshot_mode"] is None
    assert order(cast)["allowed_snapshot_modes"] == ["link-dest"]


@pytest.mark.parametrize("mode", ["btrfs", "reflink", "auto"])
def test_modes_that_share_blocks_reach_the_storage(cast: Cast, mode: str) -> None:
    declare(cast, snapshot_mode=mode)
    assert order(cast)["snapshot_mode"] == mode


def test_auto_for_large_files_may_mean_no_history_and_is_held_back_like_it(cast: Cast) -> None:
    declare(cast, snapshot_mode="auto")
    declare(cast, snapshot_mode="auto", large_modifying_files=True)
    assert order(cast)["snapshot_mode"] == "link-dest"
    pass_delay()
    assert order(cast)["snapshot_mode"] == "auto"


def test_large_files_are_left_to_auto_where_the_operator_allows_it_but_not_none(cast: Cast) -> None:
    Policy.objects.create(allowed_snapshot_modes=["link-dest", "auto"], delay_hours=0)
    declare(cast, large_modifying_files=True)
    assert order(cast)["snapshot_mode"] == "auto"
    assert order(cast)["allowed_snapshot_modes"] == ["link-dest", "auto"]
    declare(cast, snapshot_mode="none")
    assert order(cast)["snapshot_mode"] == "link-dest"


def test_shorter_retention_counts_after_the_delay(cast: Cast) -> None:
    declare(cast, retention=LONG)
    declare(cast, retention="last 1 snapshot")
    assert order(cast)["retention"] == f"last 1 snapshot, {LONG}"
    change = SourceChange.objects.get()
    assert change.weakenings == ["shorter retention"]
    assert change.date_effective is not None
    assert change.date_effective - change.date == timedelta(days=7)
    pass_delay()
    assert order(cast)["retention"] == "last 1 snapshot"


def test_further_changes_join_the_one_that_is_held_back(cast: Cast) -> None:
    declare(cast, retention=LONG)
    for number in range(20, 0, -1):
        declare(cast, retention=f"last {number} snapshots")
    ordered = order(cast)["retention"].split(", ")
    assert {"last 30 days", "earliest of 12 months", "last 20 snapshots"} == set(ordered)
    assert SourceChange.objects.count() == 1


def test_longer_retention_counts_at_once(cast: Cast) -> None:
    declare(cast, retention=LONG)
    assert order(cast)["retention"] == LONG
    assert not SourceChange.objects.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/var/empty"},
        {"exclude": ["*"]},
        {"filter": ["- *"]},
        {"frequency": "cron * * * * *", "retention": "last 5 days, last 5 snapshots"},
    ],
)
def test_history_is_kept_whole_while_other_contents_would_push_it_out(cast: Cast, change: dict[str, Any]) -> None:
    declare(cast, retention="last 5 days, last 5 snapshots")
    declare(cast, **{"retention": "last 5 days, last 5 snapshots", **change})
    assert KEEP_ALL in order(cast)["retention"]
    pass_delay()
    assert order(cast)["retention"] == "last 5 days, last 5 snapshots"


def test_snapshots_go_on_until_the_delay_of_mode_none_is_over(cast: Cast) -> None:
    declare(cast, snapshot_mode="none")
    assert order(cast)["snapshot_mode"] == "link-dest"
    declare(cast, snapshot_mode="none", comment="again")
    declare(cast, large_rotating_files=True)
    assert order(cast)["snapshot_mode"] == "link-dest"
    pass_delay()
    assert order(cast)["snapshot_mode"] is None
    assert order(cast)["large_rotating_files"] is True


def test_a_source_that_was_gone_and_returns_shorter_is_held_back_too(cast: Cast) -> None:
    declare(cast, retention=LONG)
    cast.alice.update_config({})
    assert SourceChange.objects.get(source__name="etc").weakenings == ["no longer declared"]
    declare(cast, retention="last 1 snapshot")
    assert LONG in order(cast)["retention"]


def test_a_policy_sets_the_delay(cast: Cast) -> None:
    Policy.objects.create(delay_hours=48)
    declare(cast, exclude=["*"])
    change = SourceChange.objects.get(source__name="etc")
    assert change.date_effective is not None
    assert change.date_effective - change.date == timedelta(hours=48)


def decide(action: str, change: SourceChange, *, meanwhile: Callable[[], object] = lambda: None) -> bytes:
    """The page after an operator loaded the list of changes, and chose an action for one of them."""
    browser = Client()
    browser.force_login(User.objects.get_or_create(username="root", is_staff=True, is_superuser=True)[0])
    page = reverse("admin:backups_sourcechange_changelist")
    [shown] = re.findall(rb'name="shown" value="([^"]*)"', browser.get(page).content)
    meanwhile()
    fields = {"action": action, "shown": shown.decode(), "_selected_action": [str(change.pk)]}
    return browser.post(page, fields, follow=True).content


def test_an_operator_decides_where_weakening_is_not_allowed(cast: Cast) -> None:
    Policy.objects.create(weakening_allowed=False)
    declare(cast, exclude=["*"])
    change = SourceChange.objects.get(source__name="etc")
    assert change.date_effective is None
    assert KEEP_ALL in order(cast)["retention"]
    decide("let_take_effect", change)
    assert order(cast)["retention"] == "last 5 days, earliest of month"


def test_a_part_that_joined_a_change_after_the_list_was_shown_is_not_decided(cast: Cast) -> None:
    Policy.objects.create(weakening_allowed=False)
    declare(cast, exclude=["*.iso"])
    change = SourceChange.objects.get(source__name="etc")
    answer = decide("let_take_effect", change, meanwhile=lambda: declare(cast, exclude=["*"], path="/var/empty"))
    assert b"changed again after this list" in answer
    change.refresh_from_db()
    assert change.date_effective is None
    assert KEEP_ALL in order(cast)["retention"]
    assert b"1 take effect now" in decide("let_take_effect", change)


def test_an_operator_can_hold_a_change_back_for_good(cast: Cast) -> None:
    declare(cast, exclude=["*"])
    change = SourceChange.objects.get(source__name="etc")
    decide("hold", change)
    change.refresh_from_db()
    assert change.date_effective is None
    declare(cast, exclude=["*"], path="/var/empty")
    change.refresh_from_db()
    assert change.date_effective is None, "a further change by the machine does not free it"
    assert "other path" in change.weakenings


def test_the_policy_page_checks_what_is_entered(cast: Cast) -> None:
    browser = Client()
    browser.force_login(User.objects.create_superuser("root"))
    page = reverse("admin:fleet_policy_add")
    fields = {"auth": "", "machine": "", "retention_floor": "last 14 days", "modes": ["link-dest"], "quota_gib": "1.5"}
    fields |= {"delay_hours": "72", "weakening_allowed": "unknown", "comment": ""}
    assert b"not a valid retention rule" in browser.post(page, {**fields, "retention_floor": "for ever"}).content
    assert not Policy.objects.exists()
    browser.post(page, fields)
    policy = Policy.objects.get()
    assert (policy.retention_floor, policy.allowed_snapshot_modes) == ("last 14 days", ["link-dest"])
    assert (policy.quota_bytes, policy.delay_hours, policy.weakening_allowed) == (3 * 2**29, 72, None)
    assert b"policy for these machines already exists" in browser.post(page, fields).content
    assert b"1.5 GiB" in browser.get(reverse("admin:fleet_policy_changelist")).content
    edit = reverse("admin:fleet_policy_change", args=[policy.pk])
    assert b'value="1.5"' in browser.get(edit).content
    browser.post(edit, {**fields, "modes": [], "quota_gib": ""})
    policy.refresh_from_db()
    assert (policy.allowed_snapshot_modes, policy.quota_bytes) == (None, None)


def test_history_of_sources_is_never_deleted_by_a_machine(cast: Cast) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    cast.alice.update_config({"other": {"path": "/etc"}})
    assert Source.objects.count() == 3
    assert set(cast.alice.restorable()) == {"etc", "home", "other"}
