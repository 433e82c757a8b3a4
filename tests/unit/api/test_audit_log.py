"""The audit log: what gets there, from where, and that it only grows."""

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.urls import reverse
from tests.support.api_cast import Cast, turku_api
from tests.support.v1_client import Refused, new_ssh_key

from turku.api.audit import log, values
from turku.api.audit.models import ActorKind, AuditEntry
from turku.api.backups.models import Source
from turku.api.fleet.models import Machine, Policy
from turku.core.clock import SYSTEM_CLOCK

ETC_AND_HOME = {"etc": {"path": "/etc"}, "home": {"path": "/home"}}


def entries(action: str) -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(action=action).order_by("id"))


@pytest.fixture
def browser(cast: Cast) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root", password="correct horse battery"))
    return client


def test_registrations_are_noted_with_who_and_from_where(cast: Cast) -> None:
    machine = entries("machine.registered")[0]
    assert (machine.actor_kind, machine.actor, machine.address) == ("machine", cast.alice.uuid, "127.0.0.1")
    assert (machine.subject_kind, machine.subject_key, machine.subject) == ("machine", cast.alice.uuid, "web-0")
    assert machine.new["storage"] == "primary"
    assert machine.new["registered with"] == "machines"
    storage = entries("storage.registered")[0]
    assert (storage.actor_kind, storage.actor, storage.subject_key) == ("storage", "primary", "primary")
    assert storage.new["ssh_ping_host"] == "primary.example.com"
    assert {entry.subject for entry in entries("source.added")} == {"etc", "home"}


def test_a_configuration_that_says_nothing_new_writes_nothing(cast: Cast) -> None:
    before = AuditEntry.objects.count()
    cast.alice.update_config(ETC_AND_HOME)
    cast.alice.due()
    cast.bob.due(cast.alice.uuid)
    cast.bob.succeeded(cast.alice.uuid, "etc")
    assert AuditEntry.objects.count() == before


def test_changes_are_noted_with_old_and_new_values(cast: Cast) -> None:
    cast.alice.update_config({"etc": {"path": "/etc", "retention": "last 1 snapshot"}}, service_name="shop")
    changed = entries("source.changed")[0]
    assert (changed.old, changed.weakens) == ({"retention": "last 5 days, earliest of month"}, True)
    assert changed.new == {"retention": "last 1 snapshot", "weakens": ["shorter retention"]}
    gone = entries("source.no_longer_declared")[0]
    assert (gone.subject, gone.weakens) == ("home", True)
    assert entries("machine.changed")[0].new == {"service_name": "shop"}
    cast.alice.update_config({**ETC_AND_HOME, "home": {"path": "/home", "comment": "back"}}, service_name="shop")
    assert entries("source.returned")[0].old == {"published": False, "comment": ""}


def test_a_machine_that_withdraws_itself_is_noted_as_weaker(cast: Cast) -> None:
    cast.alice.update_config(ETC_AND_HOME, published=False)
    withdrawn = entries("machine.changed")[0]
    assert (withdrawn.old, withdrawn.new, withdrawn.weakens) == ({"published": True}, {"published": False}, True)


def test_new_keys_and_host_keys_are_noted(cast: Cast) -> None:
    old = Machine.objects.get().ssh_public_key
    cast.alice.ssh_public_key = new_ssh_key()
    cast.alice.update_config(ETC_AND_HOME)
    assert entries("machine.changed")[0].old == {"ssh_public_key": old}
    cast.bob.update_config(ssh_ping_host_keys=[new_ssh_key()])
    assert set(entries("storage.changed")[0].old) == {"ssh_ping_host_keys"}


def test_restores_are_noted_once_in_a_while(cast: Cast) -> None:
    cast.alice.restorable()
    cast.alice.restorable()
    assert [entry.actor for entry in entries("restore.asked")] == [cast.alice.uuid]


def test_logins_are_noted_good_and_bad(cast: Cast) -> None:
    User.objects.create_superuser("root", password="correct horse battery")
    client = Client()
    url = reverse("admin:login")
    client.post(url, {"username": "root", "password": "wrong"})
    client.post(url, {"username": "hunter2-typed-into-the-wrong-field", "password": ""})
    client.post(url, {"username": "hunter2-typed-into-the-wrong-field", "password": "x"})
    client.post(url, {"username": "root", "password": "correct horse battery"})
    failed = entries("login.failed")
    assert [(entry.actor_kind, entry.subject, entry.address) for entry in failed] == [
        ("unknown", "root", "127.0.0.1"),
        ("unknown", "", "127.0.0.1"),
    ]
    assert [(entry.actor_kind, entry.actor) for entry in entries("login.succeeded")] == [("person", "root")]
    client.post(reverse("admin:logout"))
    assert len(entries("login.ended")) == 1
    assert "hunter2" not in everything()


def everything() -> str:
    return json.dumps(list(AuditEntry.objects.values()), default=str)


def test_acts_of_operators_are_noted(browser: Client, cast: Cast) -> None:
    machine = Machine.objects.get()
    cast.storage("other").update_config()
    url = reverse("admin:fleet_machine_change", args=[machine.pk])
    other = cast.storage("third")
    other.update_config()
    key = Machine.objects.get().storage_id
    new = next(row for row in machine.storage.__class__.objects.all() if row.pk != key)  # type: ignore[union-attr]
    browser.post(url, {"active": "on", "storage": new.pk})
    changed = entries("machine.changed")[-1]
    assert (changed.actor_kind, changed.actor) == ("person", "root")
    assert (changed.old, changed.new) == ({"storage": "primary"}, {"storage": new.name})
    source = Source.objects.get(name="etc")
    page = reverse("admin:backups_source_changelist")
    browser.post(page, {"action": "disable", "_selected_action": [str(source.pk)]})
    disabled = entries("source.changed")[-1]
    assert (disabled.subject, disabled.old, disabled.new) == ("etc", {"active": True}, {"active": False})
    assert disabled.weakens
    browser.post(page, {"action": "back_up_now", "_selected_action": [str(source.pk)]})
    assert entries("source.back_up_now")[0].actor == "root"
    browser.post(page, {"action": "delete_selected", "_selected_action": [str(source.pk)], "post": "yes"})
    assert [(entry.subject, entry.weakens) for entry in entries("source.deleted")] == [("etc", True)]


def test_policies_and_people_are_noted_without_passwords(browser: Client) -> None:
    empty = {"auth": "", "machine": "", "quota_gib": "", "weakening_allowed": "unknown", "comment": ""}
    browser.post(reverse("admin:fleet_policy_add"), {**empty, "retention_floor": "last 9 days", "delay_hours": "24"})
    assert entries("policy.added")[0].new == {"retention_floor": "last 9 days", "delay_hours": 24}
    edit = reverse("admin:fleet_policy_change", args=[Policy.objects.get().pk])
    browser.post(edit, {**empty, "retention_floor": "last 8 days", "delay_hours": "24"})
    changed = entries("policy.changed")[0]
    assert (changed.old, changed.new) == ({"retention_floor": "last 9 days"}, {"retention_floor": "last 8 days"})
    password = "hunter2 hunter2 hunter2"
    browser.post(
        reverse("admin:auth_user_add"),
        {"username": "eve", "usable_password": "true", "password1": password, "password2": password},
    )
    assert entries("user.added")[0].new["username"] == "eve"
    eve = User.objects.get(username="eve")
    browser.post(
        reverse("admin:auth_user_password_change", args=[eve.pk]),
        {"usable_password": "true", "password1": password + "!", "password2": password + "!"},
    )
    assert len(entries("user.changed")) == 1
    assert "hunter2" not in everything()


def test_commands_are_noted(db: None) -> None:
    turku_api("auth-create", "machine_reg", "--name", "site two")
    turku_api("hash-key", "rotate")
    assert (entries("auth.added")[0].actor_kind, entries("auth.added")[0].subject) == ("command", "site two")
    assert set(entries("hash_key.added")[0].new) == {"id"}


@pytest.mark.parametrize("statement", ["UPDATE audit_auditentry SET actor = 'nobody'", "DELETE FROM audit_auditentry"])
def test_the_database_itself_refuses_to_change_an_entry(cast: Cast, statement: str) -> None:
    before = list(AuditEntry.objects.values())
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert list(AuditEntry.objects.values()) == before


def test_the_pages_offer_no_way_to_change_an_entry(browser: Client) -> None:
    entry = AuditEntry.objects.all()[0]
    assert browser.post(reverse("admin:audit_auditentry_add")).status_code == 403
    for page in ("change", "delete"):
        assert (
            browser.post(reverse(f"admin:audit_auditentry_{page}", args=[entry.pk]), {"post": "yes"}).status_code == 403
        )
    form = {"action": "delete_selected", "_selected_action": [str(entry.pk)], "post": "yes"}
    browser.post(reverse("admin:audit_auditentry_changelist"), form)
    assert AuditEntry.objects.filter(pk=entry.pk).exists()


def test_a_machine_cannot_fill_the_log(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "FLOOD_LIMIT", 10)

    def change_without_end() -> None:
        for number in range(20):
            cast.alice.update_config({"etc": {"path": "/etc", "comment": f"number {number}"}})

    with pytest.raises(Refused) as caught:
        change_without_end()
    assert caught.value.status == 429
    assert AuditEntry.objects.filter(actor=cast.alice.uuid).count() <= 12
    assert set(cast.alice.due()) == {"etc"}, "checkins go on"


def test_values_are_bounded_and_secrets_hidden() -> None:
    shown = values.loggable(
        {
            "secret": "s3cret",
            "options": {"db_password": "s3cret", "deep": [{"api_key": "s3cret", "path": "/etc"}]},
            "ssh_public_key": "ssh-ed25519 AAAA",
            "long": "x" * 10_000,
            "many": list(range(500)),
            "now": SYSTEM_CLOCK.now(),
            "big": 2**70,
        }
    )
    assert "s3cret" not in json.dumps(shown)
    assert shown["options"]["deep"] == [{"api_key": "***", "path": "/etc"}]
    assert shown["ssh_public_key"] == "ssh-ed25519 AAAA"
    assert len(shown["long"]) < 2100
    assert len(shown["many"]) == 101
    nested: Any = "x"
    for _ in range(50):
        nested = [nested]
    assert len(json.dumps(values.loggable({str(number): "y" * 2000 for number in range(200)}))) < 64 * 1024
    assert json.dumps(values.loggable({"nested": nested})).count("[") == 8


def test_entries_are_on_one_line(cast: Cast) -> None:
    log.record(log.Actor(ActorKind.UNKNOWN, "a\nb"), [log.NewEntry("x.y", None)], now=SYSTEM_CLOCK.now())
    assert entries("x.y")[0].actor == "a\\nb"
