"""Operators list, disable, move and remove machines and storages. What was removed does not come back by itself."""

import json
from datetime import timedelta

import pytest
from tests.support.api_cast import Cast, post, turku_api
from tests.support.v1_client import Refused

from turku.api.audit.models import AuditEntry
from turku.api.fleet.models import FormerHistory, Machine, Storage
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import UsageError


def test_machines_are_listed_by_state_name_and_storage(cast: Cast) -> None:
    cast.machine(unit_name="db/1").update_config({})
    assert [row["name"] for row in json.loads(turku_api("machine", "list", "--json")[1])] == ["db/1", "web-0"]
    assert [row["name"] for row in json.loads(turku_api("machine", "list", "--name", "db", "--json")[1])] == ["db/1"]
    assert json.loads(turku_api("machine", "list", "--problem", "--json")[1]) == []
    cast.bob.failed(cast.alice.uuid, "etc")
    [row] = json.loads(turku_api("machine", "list", "--problem", "--storage", "primary", "--json")[1])
    assert (row["name"], row["health"]) == ("web-0", "failed")
    assert row["reason"].startswith("etc: ")
    assert turku_api("machine", "list", "--state", "off")[1] == ""
    with pytest.raises(UsageError, match="no storage 'other'"):
        turku_api("machine", "list", "--storage", "other")


def test_a_machine_is_shown_with_its_sources(cast: Cast) -> None:
    code, text = turku_api("machine", "show", "web-0")
    assert code == 0
    assert f"UUID:       {cast.alice.uuid}" in text
    assert "etc\tok\t-\t" in text
    shown = json.loads(turku_api("machine", "show", "web-0", "--json")[1])
    assert [source["name"] for source in shown["sources"]] == ["etc", "home"]
    assert shown["storage"] == "primary"


def test_a_disabled_machine_is_refused_until_it_is_enabled(cast: Cast) -> None:
    assert "is disabled" in turku_api("machine", "disable", "web-0")[1]
    with pytest.raises(Refused):
        cast.alice.due()
    assert "was already disabled" in turku_api("machine", "disable", "web-0")[1]
    assert "is enabled" in turku_api("machine", "enable", "web-0")[1]
    cast.alice.due()
    assert list(AuditEntry.objects.order_by("id").values_list("action", "actor_kind"))[-2:] == [
        ("machine.disabled", "command"),
        ("machine.enabled", "command"),
    ]


def test_a_removed_machine_is_told_so_and_does_not_register_again(cast: Cast) -> None:
    with pytest.raises(UsageError, match="what is to become of the history"):
        turku_api("machine", "remove", "web-0")
    code, text = turku_api("machine", "remove", "web-0", "--history", "keep")
    assert code == 0
    assert "kept without end" in text
    assert not Machine.objects.exists()
    credentials = {"uuid": cast.alice.uuid, "secret": cast.alice.secret}
    for call, message in (
        ("agent_ping_checkin", {"machine": credentials}),
        ("agent_ping_restore", {"machine": credentials}),
        ("update_config", {"auth": cast.machine_secret, "machine": {**credentials, "sources": {}}}),
        ("update_config", {"machine": {**credentials, "sources": {}}}),
    ):
        status, answer = post(call, message)
        assert status == 403, call
        assert answer["removed"] is True
        assert "was removed by an operator on" in answer["error"]
        assert f"turku-api machine readmit {cast.alice.uuid}" in answer["error"]
    assert not Machine.objects.exists()
    # Nobody else learns that there was such a machine, or takes its place with an Auth of the fleet.
    wrong = {"uuid": cast.alice.uuid, "secret": "x" * 30}
    assert post("agent_ping_checkin", {"machine": wrong})[1].keys() == {"error"}
    assert post("update_config", {"auth": cast.machine_secret, "machine": wrong})[0] == 403
    assert not Machine.objects.exists()
    assert AuditEntry.objects.filter(action="machine.removed", weakens=True).count() == 1


def test_a_readmitted_machine_has_its_identity_and_storage(cast: Cast) -> None:
    turku_api("machine", "remove", "web-0", "--history", "trash")
    assert "web-0" in turku_api("machine", "list", "--removed")[1]
    assert "is known again, with its history on primary" in turku_api("machine", "readmit", "web-0")[1]
    cast.alice.due()
    machine = Machine.objects.get()
    assert (str(machine.storage), str(machine.uuid)) == ("primary", cast.alice.uuid)
    assert not FormerHistory.objects.exists()
    cast.alice.update_config({"etc": {"path": "/etc"}})
    assert AuditEntry.objects.filter(action="machine.readmitted").count() == 1


def test_a_moved_machine_keeps_its_old_history_for_as_long_as_its_retention_reaches_back(cast: Cast) -> None:
    cast.storage("second").update_config()
    cast.bob.succeeded(cast.alice.uuid, "etc")
    now = SYSTEM_CLOCK.now()
    text = turku_api("machine", "move", "web-0", "second")[1]
    assert "a full one" in text
    history = FormerHistory.objects.get()
    assert history.is_moved
    assert history.date_keep_until is not None
    assert history.date_keep_until - now >= timedelta(days=89)
    assert str(Machine.objects.get().storage) == "second"
    # Back again: the first storage continues its history, and the second keeps what it has.
    cast.alice.update_config({"etc": {"path": "/etc", "retention": "earliest of 24 months"}})
    turku_api("machine", "move", "web-0", "primary")
    back = FormerHistory.objects.get()
    assert (str(back.storage), back.is_moved) == ("second", True)
    assert back.date_keep_until is not None
    assert back.date_keep_until - now >= timedelta(days=24 * 31)
    with pytest.raises(UsageError, match="already"):
        turku_api("machine", "move", "web-0", "primary")


def test_a_drained_storage_hands_its_machines_on_and_can_then_be_removed(cast: Cast) -> None:
    for name, space in (("second", 3000.0), ("third", 1000.0)):
        cast.storage(name).update_config(space_available=space, space_total=9000.0)
    for number in range(7):
        machine = cast.machine(unit_name=f"m/{number}")
        machine.update_config({})
    Machine.objects.update(storage=Storage.objects.get(name="primary"))
    cast.bob.succeeded(cast.alice.uuid, "etc")
    with pytest.raises(UsageError, match="backs up 8 machines"):
        turku_api("storage", "remove", "primary")
    preview = turku_api("storage", "drain", "primary", "--dry-run")[1]
    assert "6 to second" in preview
    assert "2 to third" in preview
    assert Machine.objects.filter(storage__name="primary").count() == 8
    with pytest.raises(UsageError, match="nobody can be asked"):
        turku_api("storage", "drain", "primary")
    turku_api("storage", "drain", "primary", "--yes")
    assert Machine.objects.filter(storage__name="second").count() == 6
    newcomer = cast.machine(unit_name="new")
    newcomer.update_config({})
    assert str(Machine.objects.get(unit_name="new").storage) != "primary"
    with pytest.raises(UsageError, match="keeps the history of 1 machine"):
        turku_api("storage", "remove", "primary")
    turku_api("storage", "remove", "primary", "--abandon-histories")
    with pytest.raises(Refused, match="this storage was removed by an operator"):
        cast.bob.update_config()
    turku_api("storage", "readmit", "primary")
    cast.bob.update_config()


def test_storages_are_listed_and_shown(cast: Cast) -> None:
    [row] = json.loads(turku_api("storage", "list", "--json")[1])
    assert (row["name"], row["machines"], row["draining"]) == ("primary", 1, False)
    assert turku_api("storage", "list")[1].startswith("primary\tok\t1\t0\t")
    turku_api("storage", "drain", "primary", "--only-new")
    assert "gets no new machines" in turku_api("storage", "show", "primary")[1]
    turku_api("storage", "undrain", "primary")
    assert not Storage.objects.get().is_draining
