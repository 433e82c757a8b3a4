"""The admin site moves, drains and removes, after a page that asks. Each act is in the audit log under the person."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from tests.support.api_cast import Cast
from tests.support.v1_client import Refused

from turku.api.audit.models import AuditEntry
from turku.api.fleet.models import FormerHistory, Machine, Storage


@pytest.fixture
def admin(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root", password="correct horse battery"))
    return client


def act(admin: Client, model: str, action: str, *keys: Any, **values: Any) -> str:
    """The page that asks, and the list after the answer."""
    address = f"/admin/fleet/{model}/"
    form = {"action": action, "_selected_action": [str(key) for key in keys]}
    asked = admin.post(address, form)
    assert asked.status_code == 200
    assert 'name="confirmed"' in asked.content.decode()
    return admin.post(address, {**form, "confirmed": "yes", **values}, follow=True).content.decode()


def actors(action: str) -> list[str]:
    return list(AuditEntry.objects.filter(action=action).values_list("actor", flat=True))


def test_machines_are_moved_and_removed(cast: Cast, admin: Client) -> None:
    cast.storage("second").update_config()
    cast.bob.succeeded(cast.alice.uuid, "etc")
    machine, second = Machine.objects.get(), Storage.objects.get(name="second")
    assert "1 moved" in act(admin, "machine", "move", machine.pk, storage=second.pk)
    assert actors("machine.moved") == ["root"]
    assert FormerHistory.objects.get().is_moved
    assert "second" in admin.get(f"/admin/fleet/machine/{machine.pk}/change/").content.decode()
    assert "A moment in the future" in act(admin, "machine", "remove", machine.pk, history="until")
    assert "1 removed" in act(admin, "machine", "remove", machine.pk, history="keep")
    assert actors("machine.removed") == ["root"]
    with pytest.raises(Refused, match="was removed by an operator"):
        cast.alice.update_config({})


def test_another_storage_on_the_page_of_a_machine_is_a_move(cast: Cast, admin: Client) -> None:
    cast.storage("second").update_config()
    cast.bob.succeeded(cast.alice.uuid, "etc")
    machine, second = Machine.objects.get(), Storage.objects.get(name="second")
    form = {"active": "on", "storage": second.pk, "date_muted_until_0": "", "date_muted_until_1": "", "mute_reason": ""}
    assert admin.post(f"/admin/fleet/machine/{machine.pk}/change/", form).status_code == 302
    machine.refresh_from_db()
    assert machine.storage == second
    assert str(FormerHistory.objects.get().storage) == "primary"
    Storage.objects.filter(pk=second.pk).update(is_draining=True)
    Machine.objects.update(storage=Storage.objects.get(name="primary"))
    shown = admin.post(f"/admin/fleet/machine/{machine.pk}/change/", form).content.decode()
    assert "is being drained" in shown


def test_a_machine_that_the_site_deletes_does_not_come_back(cast: Cast, admin: Client) -> None:
    admin.post(f"/admin/fleet/machine/{Machine.objects.get().pk}/delete/", {"post": "yes"})
    assert not Machine.objects.exists()
    with pytest.raises(Refused, match="was removed by an operator"):
        cast.alice.update_config({})
    assert FormerHistory.objects.get().date_keep_until is None


def test_storages_are_drained_and_removed(cast: Cast, admin: Client) -> None:
    cast.storage("second").update_config()
    primary = Storage.objects.get(name="primary")
    assert "backs up 1 machine" in act(admin, "storage", "remove", primary.pk)
    assert "1 drained, 1 machines moved" in act(admin, "storage", "drain", primary.pk, machines="move")
    assert str(Machine.objects.get().storage) == "second"
    assert (
        "get new machines again"
        in admin.post(
            "/admin/fleet/storage/", {"action": "undrain", "_selected_action": [primary.pk]}, follow=True
        ).content.decode()
    )
    assert "1 removed" in act(admin, "storage", "remove", primary.pk)
    assert not Storage.objects.filter(name="primary").exists()
    assert (actors("storage.drained"), actors("storage.removed")) == (["root"], ["root"])
