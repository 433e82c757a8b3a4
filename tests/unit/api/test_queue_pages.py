"""The pages of the queue, its audit entries and its health sentences."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from tests.support.api_cast import Cast, turku_api

from turku.api.audit.models import AuditEntry
from turku.api.fleet.models import Machine, Storage
from turku.api.queue.models import Slot, StorageSlots, WaitingMachine
from turku.core.clock import SYSTEM_CLOCK


@pytest.fixture
def admin(db: None, settings: object) -> Client:
    user = User.objects.create_superuser("operator", password="x" * 20)
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def busy(cast: Cast) -> Cast:
    """Alice has the one slot for first backups, and two others wait for it."""
    cast.bob.update_config(slots=4)
    cast.alice.due()
    cast.bob.due(cast.alice.uuid)
    for name in ("web-1", "web-2"):
        other = cast.machine(unit_name=name)
        other.update_config({"etc": {"path": "/etc"}})
        assert other.due() == {}
    return cast


def page(admin: Client, address: str) -> str:
    response = admin.get(address, secure=True)
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def test_the_list_of_storages_counts_who_runs_and_who_waits(busy: Cast, admin: Client) -> None:
    text = page(admin, "/admin/queue/storageslots/")
    assert "3 + 1 for first backups" in text
    assert ">1</a>" in text  # running
    assert ">2</a>" in text  # waiting


def test_the_list_of_slots_says_who_has_them(busy: Cast, admin: Client) -> None:
    text = page(admin, "/admin/queue/slot/?state=running")
    assert str(Machine.objects.get(uuid=busy.alice.uuid)) in text
    assert "running" in text
    assert text.count('class="field-place"') == 1
    assert page(admin, "/admin/queue/slot/?state=free").count('class="field-place"') == 3
    Slot.objects.exclude(machine=None).update(date_expires=SYSTEM_CLOCK.now() - timedelta(minutes=1))
    assert page(admin, "/admin/queue/slot/?state=lapsed").count('class="field-place"') == 1


def test_a_lease_from_a_clock_that_was_ahead_is_not_shown_as_running(busy: Cast, admin: Client) -> None:
    Slot.objects.exclude(machine=None).update(date_expires=SYSTEM_CLOCK.now() + timedelta(days=30))
    assert 'class="field-place"' not in page(admin, "/admin/queue/slot/?state=running")
    assert ">1</a>" not in page(admin, "/admin/queue/storageslots/")


def test_the_queue_shows_places_and_since_when(busy: Cast, admin: Client) -> None:
    text = page(admin, "/admin/queue/waitingmachine/")
    places = [part.split("<", 1)[0] for part in text.split('class="field-position">')[1:]]
    assert places == ["1", "2"]
    assert text.index("web-1") < text.index("web-2")


def test_an_operator_changes_the_slots_and_it_is_on_the_audit_log(busy: Cast, admin: Client) -> None:
    storage = Storage.objects.get()
    address = f"/admin/queue/storageslots/{storage.pk}/change/"
    assert "3 + 1 for first backups" in page(admin, address)
    response = admin.post(address, {"slots": "3", "first_slots": "2"}, secure=True)
    assert response.status_code == 302
    assert Slot.objects.filter(retired=False, lane="regular").count() == 1
    assert Slot.objects.filter(retired=False, lane="first").count() == 2
    entry = AuditEntry.objects.get(action="storageslots.changed")
    assert (entry.actor, entry.new) == ("operator", {"slots": 3, "first_slots": 2})
    assert entry.old == {"slots": None, "first_slots": None}


@pytest.mark.parametrize("numbers", [{"slots": "0"}, {"slots": "3", "first_slots": "3"}, {"first_slots": "4"}])
def test_numbers_that_cannot_be_are_refused_in_the_form(busy: Cast, admin: Client, numbers: dict[str, str]) -> None:
    address = f"/admin/queue/storageslots/{Storage.objects.get().pk}/change/"
    response = admin.post(address, {"slots": "", "first_slots": "", **numbers}, secure=True)
    assert response.status_code == 200
    assert "errorlist" in response.content.decode()
    assert StorageSlots.objects.get().slots is None


def test_an_operator_ends_a_lease_and_it_is_on_the_audit_log(busy: Cast, admin: Client) -> None:
    slot = Slot.objects.exclude(machine=None).get()
    data = {"action": "end_lease", "_selected_action": [str(slot.pk)]}
    assert admin.post("/admin/queue/slot/", data, secure=True).status_code == 302
    assert not Slot.objects.exclude(machine=None).exists()
    entry = AuditEntry.objects.get(action="slot.changed")
    assert (entry.actor, entry.new) == ("operator", {"machine": None})


def test_someone_who_may_only_look_ends_nothing(busy: Cast) -> None:
    from django.contrib.auth.models import Permission

    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(user)
    data = {"action": "end_lease", "_selected_action": [str(slot.pk) for slot in Slot.objects.all()]}
    client.post("/admin/queue/slot/", data, secure=True)
    assert Slot.objects.exclude(machine=None).exists()
    assert client.get("/admin/queue/slot/", secure=True).status_code == 200


def test_health_reports_a_queue_that_is_too_long(busy: Cast) -> None:
    assert turku_api("health")[0] == 0
    WaitingMachine.objects.update(date_queued=SYSTEM_CLOCK.now() - timedelta(hours=7))
    code, text = turku_api("health")
    assert code == 2
    assert text.startswith("CRITICAL: ")
    assert "queue too long at 1 storage" in text
    assert "storage primary: 2 machines wait for a slot, the first for 7 h" in turku_api("health", "--verbose")[1]


def test_health_reports_sessions_that_went_silent(busy: Cast) -> None:
    Slot.objects.exclude(machine=None).update(date_expires=SYSTEM_CLOCK.now() - timedelta(hours=3))
    code, text = turku_api("health", "--verbose")
    assert code == 0
    assert "the session of machine web-0 went silent; its lease expired 3 h ago" in text
