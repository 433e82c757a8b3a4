"""Versions, copies and shared names: the coordinator notices them at checkins, and tells the machine."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.support.api_cast import Cast, post, turku_api

from turku.api.audit.models import AuditEntry
from turku.api.fleet import versions
from turku.api.fleet.identity import clones
from turku.api.fleet.models import Machine, Storage
from turku.api.status import fleet_marks
from turku.core.clock import SYSTEM_CLOCK


def checkin(cast: Cast, system: str = "", **host: Any) -> list[str]:
    """The warnings in the answer to a checkin of this running system."""
    message = {"machine": {"uuid": cast.alice.uuid, "secret": cast.alice.secret}, "host": {"system": system, **host}}
    status, answer = post("agent_ping_checkin", message)
    assert status == 200
    warnings: list[str] = answer["machine"].get("warnings", [])
    return warnings


def mark() -> str:
    [row] = fleet_marks.machines(now=SYSTEM_CLOCK.now())
    return str(row.mark)


def test_two_systems_that_check_in_by_turns_are_told_so(cast: Cast) -> None:
    assert [checkin(cast, system) for system in ("a", "b", "a")] == [[], [], []]
    assert mark() == "ok"
    for system in ("b", "a", "b"):
        assert checkin(cast, system) == [clones.WARNING]
    assert mark() == "copied"
    assert "two running systems used its identity by turns" in turku_api("health", "--verbose")[1]
    assert AuditEntry.objects.filter(action="machine.copy_seen").count() == 1
    # When one of them is gone, the mark ends after a while.
    assert checkin(cast, "b") == []
    Machine.objects.update(date_clone_seen=SYSTEM_CLOCK.now() - clones.SEEN_FOR)
    assert mark() == "ok"


@pytest.mark.parametrize(
    "systems",
    [
        "aaabbbccc",  # reboots, restored backups and disk images that were rolled back
        "abaaac",  # a memory snapshot that was resumed
        "abacada",  # one that is resumed again and again, as in a laboratory
    ],
)
def test_a_single_system_gives_no_alarm(cast: Cast, systems: str) -> None:
    assert [checkin(cast, system) for system in systems] == [[]] * len(systems)
    assert mark() == "ok"


def test_a_program_that_may_not_see_the_first_process_is_no_copy(cast: Cast) -> None:
    # turku-update-config.service has ProtectProc, and turku-agent-ping.service has not.
    assert not any(checkin(cast, system) for system in ("boot.123", "boot", "boot.123", "boot", "boot.123", "boot"))
    # Containers of one kernel are told apart by their first process.
    assert [bool(checkin(cast, system)) for system in ("boot.1", "boot.2") * 2][-1]


def test_three_copies_are_noticed(cast: Cast) -> None:
    told = [bool(checkin(cast, system)) for system in "abcabc"]
    assert told == [False] * 4 + [True] * 2


def test_a_checkin_of_the_same_system_costs_nothing_more(cast: Cast, django_assert_num_queries: Any) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    checkin(cast, "a")
    with django_assert_num_queries(1):
        checkin(cast, "a")


def test_versions_are_kept_and_those_that_are_too_old_are_marked(cast: Cast, settings: Any) -> None:
    checkin(cast, versions={"turku": "2.0.0.dev0", "rsync": "3.2.7", "os": "Debian 12", "other": "1"})
    assert Machine.objects.get().versions == {"turku": "2.0.0.dev0", "rsync": "3.2.7", "os": "Debian 12"}
    assert "2.0.0.dev0\t3.2.7" in turku_api("machine", "list", "--versions")[1]
    cast.bob.update_config(versions={"turku": "2.0.0", "rsync": "3.2.7"})
    environment = settings.TURKU_ENVIRONMENT
    settings.TURKU_ENVIRONMENT = replace(environment, minimum_version="2.1", minimum_storage_rsync="3.5.0")
    text = turku_api("health", "--verbose")[1]
    assert "turku 2.0.0.dev0 is older than 2.1 (TURKU_MINIMUM_VERSION)" in text
    assert "rsync 3.2.7 is older than 3.5.0 (TURKU_MINIMUM_STORAGE_RSYNC)" in text
    settings.TURKU_ENVIRONMENT = replace(environment, minimum_version="2.0", minimum_storage_rsync="3.2")
    assert turku_api("health")[0] == 0
    # A host of the existing system reports none, and is not marked.
    Machine.objects.update(versions={}, program_order=None)
    Storage.objects.update(versions={}, program_order=None, rsync_order=None)
    settings.TURKU_ENVIRONMENT = replace(environment, minimum_version="9.0")
    assert turku_api("health")[0] == 0


def test_versions_sort_by_their_numbers() -> None:
    assert versions.order("2.0.0.dev0") == versions.order("2")
    texts = ["2.0", "2.0.1", "2.9", "2.10", "10.0"]
    orders = [versions.order(text) for text in texts]
    assert orders == sorted(orders, key=lambda each: each or 0)
    assert versions.order("unknown") is None


def test_two_machines_of_one_name_are_told_and_remarked(cast: Cast) -> None:
    twin = cast.machine()
    answer = twin.update_config({})
    [warning] = answer["warnings"]
    assert warning.startswith(f"another machine is called web-0 as well: {cast.alice.uuid[:8]} (last seen ")
    assert "machine web-0: 2 machines have this name" in turku_api("health", "--verbose")[1]
    assert "warnings" not in twin.update_config({}, unit_name="web-1")
    assert "have this name" not in turku_api("health", "--verbose")[1]
    Machine.objects.update(date_clone_seen=SYSTEM_CLOCK.now() - timedelta(days=2))
    assert mark_of(twin.uuid) == "ok"


def mark_of(uuid: str) -> str:
    [row] = fleet_marks.machines(now=SYSTEM_CLOCK.now()).filter(uuid=uuid)
    return str(row.mark)
