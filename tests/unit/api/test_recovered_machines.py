"""Machines that storages report to a coordinator that lost its database: taken by an operator's leave, and no more."""

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from tests.support.api_cast import Cast
from tests.support.v1_client import V1Machine, V1Storage

from turku.api.audit import log
from turku.api.audit.models import AuditEntry
from turku.api.backups import recovered_machines
from turku.api.backups.models import Source
from turku.api.fleet import removal
from turku.api.fleet.identity import re_enrolment
from turku.api.fleet.models import Auth, Machine
from turku.core.clock import SYSTEM_CLOCK

ETC = {
    "options": {"path": "/etc", "retention": "last 14 days", "exclude": ["/ssh"], "preserve_hard_links": True},
    "newest_snapshot": 1.8e9,
}


def tell(storage: V1Storage, machines: dict[str, Any]) -> tuple[int, Any]:
    message = {"storage": {"name": storage.name, "secret": storage.secret}, "machines": machines}
    response = Client(raise_request_exception=False).post(
        "/v2/storage_known_machines", json.dumps(message), content_type="application/json"
    )
    return response.status_code, json.loads(response.content)


def outcomes(storage: V1Storage, machines: dict[str, Any]) -> dict[str, str]:
    status, answer = tell(storage, machines)
    assert status == 200, answer
    return {uuid: each["outcome"] for uuid, each in answer["machines"].items()}


@pytest.fixture
def recovering(cast: Cast) -> Cast:
    now = SYSTEM_CLOCK.now()
    recovered_machines.begin(until=now + timedelta(hours=1), now=now)
    return cast


def test_a_machine_is_there_again_with_names_and_sources(recovering: Cast) -> None:
    lost = str(uuid.uuid4())
    report = {"sources": {"etc": ETC, "old": {}}, "environment_name": "production", "unit_name": "web/2"}
    for _ in range(2):
        assert outcomes(recovering.bob, {lost: report}) == {lost: "recovered"}
    machine = Machine.objects.get(uuid=lost)
    assert (str(machine), str(machine.storage), machine.active) == ("production-web/2", recovering.bob.name, True)
    [source] = Source.objects.filter(machine=machine)
    assert (source.name, source.path, source.retention, source.exclude) == ("etc", "/etc", "last 14 days", ["/ssh"])
    assert source.date_last_backed_up is not None
    # Nobody knows its secret, and its name opens nothing.
    stranger = V1Machine(recovering.machine().post, auth=recovering.machine_secret, uuid=lost)
    status, _answer = stranger.post("update_config", {"machine": {"uuid": lost, "secret": "x" * 32, "unit_name": "me"}})
    assert status == 403


def test_its_operators_code_gives_it_back_and_its_sources_are_due(recovering: Cast) -> None:
    lost = str(uuid.uuid4())
    outcomes(recovering.bob, {lost: {"sources": {"etc": ETC}, "unit_name": "web/2"}})
    machine = Machine.objects.get(uuid=lost)
    now = SYSTEM_CLOCK.now()
    code = re_enrolment.issue(machine, actor=log.COMMAND_LINE, now=now).reveal()
    back = recovering.machine()
    status, answer = back.post(
        "machine_reenrol", {"code": code, "secret": back.secret, "ssh_public_key": back.ssh_public_key}
    )
    assert (status, answer) == (200, {"machine": {"uuid": lost}})
    back.uuid = lost
    assert set(back.due()) == {"etc"}
    machine.refresh_from_db()
    # From now on, no storage says anything about it.
    assert outcomes(recovering.bob, {lost: {"sources": {"more": ETC}}}) == {lost: "known"}


def test_nothing_is_taken_without_an_operators_leave(cast: Cast) -> None:
    lost = str(uuid.uuid4())
    assert tell(cast.bob, {lost: {"sources": {"etc": ETC}}})[0] == 403
    now = SYSTEM_CLOCK.now()
    recovered_machines.begin(until=now - timedelta(seconds=1), now=now)
    assert tell(cast.bob, {lost: {}})[0] == 403
    recovered_machines.begin(until=now + timedelta(hours=1), now=now)
    recovered_machines.end(now=now)
    assert tell(cast.bob, {lost: {}})[0] == 403
    assert not Machine.objects.filter(uuid=lost).exists()


def test_a_machine_that_is_there_is_not_changed(recovering: Cast) -> None:
    alice = Machine.objects.get(uuid=recovering.alice.uuid)
    other = recovering.storage("mallory")
    other.update_config()
    before = Machine.objects.filter(pk=alice.pk).values().get()
    report = {"sources": {"etc": {"options": {"path": "/", "retention": "last 1 days"}}}, "unit_name": "mine"}
    assert outcomes(other, {recovering.alice.uuid: report}) == {recovering.alice.uuid: "known"}
    assert Machine.objects.filter(pk=alice.pk).values().get() == before
    assert set(recovering.alice.due()) == {"etc", "home"}


def test_a_machine_that_an_operator_removed_does_not_come_back(recovering: Cast) -> None:
    lost = str(uuid.uuid4())
    outcomes(recovering.bob, {lost: {"unit_name": "web/2"}})
    now = SYSTEM_CLOCK.now()
    removal.remove_machine(Machine.objects.get(uuid=lost), None, actor=log.COMMAND_LINE, now=now)
    assert outcomes(recovering.bob, {lost: {"unit_name": "web/2"}}) == {lost: "known"}
    assert not Machine.objects.filter(uuid=lost).exists()


def test_a_machine_of_two_storages_is_off_until_an_operator_decides(recovering: Cast) -> None:
    lost = str(uuid.uuid4())
    other = recovering.storage("mallory")
    other.update_config()
    outcomes(other, {lost: {"unit_name": "web/2"}})
    assert outcomes(recovering.bob, {lost: {"unit_name": "web/2"}}) == {lost: "claimed"}
    machine = Machine.objects.get(uuid=lost)
    assert not machine.active
    assert AuditEntry.objects.filter(action="machine.claimed").count() == 1


def test_nobody_registers_with_the_auth_of_recovered_machines(recovering: Cast) -> None:
    auth = Auth.objects.get(name=recovered_machines.AUTH_NAME)
    assert auth.uses_limit == 0


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ({"unit_name": "two\nlines"}, "unit name"),
        ({"ssh_public_key": "ssh-ed25519 AAAA\ncommand=x"}, "ssh_public_key"),
        ({"ssh_public_key": 'command="x" ssh-rsa AAAA'}, "ssh_public_key"),
    ],
)
def test_lies_are_refused_by_name(recovering: Cast, report: dict[str, Any], message: str) -> None:
    lost = str(uuid.uuid4())
    _status, answer = tell(recovering.bob, {lost: report, "../etc": {}})
    assert answer["machines"][lost]["outcome"] == "refused"
    assert message in answer["machines"][lost]["detail"]
    assert answer["machines"]["../etc"]["outcome"] == "refused"
    assert not Machine.objects.filter(uuid=lost).exists()


def test_another_machines_key_and_unlawful_sources_are_not_taken(recovering: Cast) -> None:
    lost = str(uuid.uuid4())
    key = recovering.alice.ssh_public_key
    assert outcomes(recovering.bob, {lost: {"ssh_public_key": key}}) == {lost: "refused"}
    sources = {
        "etc": ETC,
        "../x": ETC,
        "bad": {"options": {"path": "/bad", "filter": ["merge /etc/shadow"], "retention": "for ever"}},
    }
    _status, answer = tell(recovering.bob, {lost: {"sources": sources}})
    assert answer["machines"][lost]["outcome"] == "recovered"
    assert "bad" in answer["machines"][lost]["detail"]
    assert list(Source.objects.filter(machine__uuid=lost).values_list("name", flat=True)) == ["etc"]
