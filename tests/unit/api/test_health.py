"""Health marks, the Nagios check and the call `health`."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from tests.support.api_cast import Cast, post, turku_api

from turku.api.audit.models import AuditEntry
from turku.api.backups.models import Source
from turku.api.fleet.models import Machine, Storage
from turku.api.status import fleet_health, fleet_marks, source_marks
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import UsageError

MINUTE = timedelta(minutes=1)


def marks(now: Any) -> tuple[set[str], set[str], set[str]]:
    return (
        {row.mark for row in fleet_marks.storages(now=now)},
        {row.mark for row in fleet_marks.machines(now=now)},
        {row.mark for row in source_marks.sources(now=now)},
    )


def test_a_new_fleet_is_well(cast: Cast) -> None:
    assert marks(SYSTEM_CLOCK.now()) == ({"ok"}, {"ok"}, {"ok"})


def test_silence_is_marked_after_its_time(cast: Cast) -> None:
    now = SYSTEM_CLOCK.now()
    assert marks(now + 29 * MINUTE)[0] == {"ok"}
    assert marks(now + 31 * MINUTE)[0] == {"silent"}
    for minutes, mark in ((59, "ok"), (61, "silent")):
        Storage.objects.update(date_checked_in=now + minutes * MINUTE)
        assert marks(now + minutes * MINUTE)[1:] == ({mark}, {"ok"})
    assert marks(now + 599 * MINUTE)[2] == {"ok"}
    assert marks(now + 601 * MINUTE)[2] == {"overdue"}


def test_the_registered_and_never_seen_have_the_same_grace(cast: Cast) -> None:
    Storage.objects.update(date_checked_in=None)
    Machine.objects.update(date_checked_in=None)
    now = SYSTEM_CLOCK.now()
    assert marks(now)[:2] == ({"ok"}, {"ok"})
    assert marks(now + 601 * MINUTE)[:2] == ({"silent"}, {"silent"})


def test_a_failed_source_is_marked_at_once(cast: Cast) -> None:
    cast.bob.failed(cast.alice.uuid, "etc")
    cast.bob.succeeded(cast.alice.uuid, "home")
    assert marks(SYSTEM_CLOCK.now())[2] == {"failed", "ok"}


@pytest.mark.parametrize("change", [{"active": False}, {"published": False}])
def test_switched_off_machines_and_storages_do_not_count(cast: Cast, change: dict[str, bool]) -> None:
    later = SYSTEM_CLOCK.now() + timedelta(days=2)
    Machine.objects.update(**change)
    assert marks(later)[1:] == ({"off"}, {"off"})
    Storage.objects.update(**change)
    assert marks(later)[0] == {"off"}
    assert fleet_health.current_health(now=later).summary == "OK: 0 storages ok; 0 machines ok; 0 sources ok"


def test_a_machine_that_nobody_backs_up_is_marked(cast: Cast) -> None:
    Machine.objects.update(storage=None)
    now = SYSTEM_CLOCK.now()
    assert marks(now)[1] == {"ok"}
    assert marks(now + 31 * MINUTE)[1] == {"unassigned"}


def test_the_nagios_check_says_all_in_one_line(cast: Cast) -> None:
    assert turku_api("health") == (0, "OK: 1 storage ok; 1 machine ok; 2 sources ok\n")
    cast.bob.failed(cast.alice.uuid, "etc")
    seen = SYSTEM_CLOCK.now() - timedelta(hours=1)
    Storage.objects.update(date_checked_in=seen)
    assert turku_api("health") == (2, "CRITICAL: 1 silent of 1 storage; 1 failed of 1 machine; 1 failed of 2 sources\n")
    code, text = turku_api("health", "--verbose")
    assert code == 2
    assert text.splitlines()[1:] == [
        f"  storage primary: silent: not heard of since {timezone.localtime(seen):%Y-%m-%d %H:%M}",
        "  machine web-0: failed: etc: rsync exit code 12",
        "  source web-0 / etc: failed: rsync exit code 12",
    ]


def test_the_call_counts_what_there_is(cast: Cast) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc")
    status, answer = post("health", {})
    assert (status, answer["healthy"]) == (200, True)
    assert answer["counts"] == {"auth": 2, "storage": 1, "machine": 1, "source": 2, "filter_set": 0, "backup_log": 1}
    assert Source.objects.count() == 2


def test_the_time_limits_are_options_of_the_check(cast: Cast) -> None:
    now = SYSTEM_CLOCK.now()
    Storage.objects.update(date_checked_in=now - 20 * MINUTE)
    Machine.objects.update(date_checked_in=now - 50 * MINUTE)
    Source.objects.update(date_expected=now - 9 * 60 * MINUTE)
    assert turku_api("health")[0] == 0
    assert "1 silent of 1 storage;" in turku_api("health", "--storage-silent", "15")[1]
    assert "1 silent of 1 machine;" in turku_api("health", "--machine-silent", "0.5")[1]
    assert "2 overdue of 2 sources" in turku_api("health", "--overdue", "8")[1]
    Machine.objects.update(date_checked_in=now - timedelta(days=2))
    Source.objects.update(date_expected=now - timedelta(days=2))
    assert turku_api("health", "--machine-silent", "72")[0] == 0


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "many", "1e9"])
def test_a_senseless_time_is_refused(cast: Cast, value: str) -> None:
    with pytest.raises(UsageError, match=r"--overdue"):
        turku_api("health", "--overdue", value)


def storage_message(cast: Cast) -> dict[str, object]:
    storage = Storage.objects.get()
    return {
        "name": storage.name,
        "secret": cast.bob.secret,
        "ssh_ping_host": "storage.example.com",
        "ssh_ping_host_keys": storage.ssh_ping_host_keys,
        "ssh_ping_user": "root",
        "space_total": 1000.0,
        "space_available": 100.0,
    }


@pytest.mark.parametrize(
    ("said", "label", "reason"),
    [
        ({"faults": ["data is gone"], "fault_kinds": ["unmounted"]}, "unmounted", "data is gone"),
        ({"faults": ["data is full"], "fault_kinds": ["full"]}, "full", "data is full"),
        # The worst kind marks, and all reasons are told.
        ({"faults": ["gone", "full", "odd"], "fault_kinds": ["unmounted", "full", ""]}, "unmounted", "gone; full; odd"),
        ({"faults": ["odd", "full"], "fault_kinds": ["", "full"]}, "full", "odd; full"),
        # A kind of a later version, fewer kinds than faults, and more.
        ({"faults": ["odd"], "fault_kinds": ["haunted"]}, "faulty", "odd"),
        ({"faults": ["odd", "x"], "fault_kinds": [""]}, "faulty", "odd; x"),
        ({"faults": ["odd"], "fault_kinds": ["", "full"]}, "faulty", "odd"),
    ],
)
def test_a_fault_of_a_known_kind_has_its_own_mark(
    cast: Cast, said: dict[str, list[str]], label: str, reason: str
) -> None:
    post("storage_update_config", {"storage": {**storage_message(cast), **said}})
    found = fleet_health.current_health(now=SYSTEM_CLOCK.now(), verbose=True)
    assert f"1 {label} of 1 storage" in found.summary
    assert found.groups[0].sentences == (f"storage {Storage.objects.get().name}: {label}: {reason}",)
    post("storage_update_config", {"storage": storage_message(cast)})
    assert fleet_health.current_health(now=SYSTEM_CLOCK.now()).is_healthy


@pytest.mark.parametrize(
    ("minutes", "direction"), [(-400, "behind"), (-6, "behind"), (0, ""), (4, ""), (6, "ahead of"), (1e12, "ahead of")]
)
def test_a_storage_whose_clock_is_off_is_marked_by_the_coordinator(cast: Cast, minutes: float, direction: str) -> None:
    time_now = SYSTEM_CLOCK.now().timestamp() + minutes * 60
    entries = AuditEntry.objects.count()
    for second in range(3):
        post("storage_update_config", {"storage": {**storage_message(cast), "time_now": time_now + second}})
    found = fleet_health.current_health(now=SYSTEM_CLOCK.now(), verbose=True)
    assert found.is_healthy == (not direction)
    if direction:
        assert "1 clock off of 1 storage" in found.summary
        [sentence] = found.groups[0].sentences
        assert sentence.endswith(f"clock off: its clock is more than 5 min {direction} the coordinator's")
        # A clock that stays wrong is one change.
        assert AuditEntry.objects.count() <= entries + 1


def test_a_storage_that_says_what_is_wrong_with_it_is_marked_and_quoted(cast: Cast) -> None:
    storage = Storage.objects.get()
    configuration = storage_message(cast)
    fault = "volume data: /srv/turku lacks the mark .turku-volume of this volume\n"
    post("storage_update_config", {"storage": {**configuration, "faults": [fault]}})
    found = fleet_health.current_health(now=SYSTEM_CLOCK.now(), verbose=True)
    assert not found.is_healthy
    assert "1 faulty of 1 storage" in found.summary
    [sentence] = found.groups[0].sentences
    assert sentence.startswith(f"storage {storage.name}: faulty: volume data: /srv/turku lacks")
    assert "\n" not in sentence
    # An existing storage, and one that is well again, say nothing.
    post("storage_update_config", {"storage": configuration})
    assert fleet_health.current_health(now=SYSTEM_CLOCK.now()).is_healthy
