"""Lists of the admin site are bounded, and what filters and searches find is what they say."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from tests.support.api_cast import Cast
from tests.support.v1_client import V1Machine

from turku.api.admin import bounded_list
from turku.api.admin.pages.audit import matching_entries
from turku.api.audit.models import AuditEntry
from turku.api.backups.models import BackupRun, Source, SourceChange
from turku.api.backups.search import matching_runs, matching_sources
from turku.api.fleet import search
from turku.api.fleet.models import Machine, Storage
from turku.api.fleet.search import matching_machines
from turku.api.status import fleet_marks, source_marks
from turku.api.status.marks import Mark, has_mark
from turku.core.clock import SYSTEM_CLOCK


@pytest.fixture
def machines(cast: Cast) -> list[V1Machine]:
    """Three machines beside Alice, one with a failed and a good run."""
    machines = [
        cast.machine(unit_name="Mail-0", uuid="abcdef00-0000-4000-8000-000000000001"),
        cast.machine(unit_name="mail-1", uuid="abcdef00-0000-4000-8000-000000000002"),
        cast.machine(unit_name="db-0"),
    ]
    for machine in machines:
        machine.update_config({"etc": {"path": "/etc"}, "spool": {"path": "/var/Spool"}}, service_name="office")
    cast.bob.succeeded(machines[0].uuid, "etc")
    cast.bob.failed(machines[0].uuid, "spool")
    return machines


@pytest.fixture
def admin(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root", password="correct horse battery"))
    return client


def page(client: Client, model: Any, query: str = "") -> str:
    address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    response = client.get(address + query)
    assert response.status_code == 200, query
    return response.content.decode()


def units(words: Sequence[str]) -> list[str]:
    found = Machine.objects.filter(matching_machines(words))
    return sorted(found.values_list("unit_name", flat=True))


def test_a_list_counts_to_its_limit_and_says_so(
    admin: Client, machines: list[V1Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "4 machines" in page(admin, Machine)
    monkeypatch.setattr(bounded_list, "LIMIT", 3)
    text = page(admin, Machine)
    assert "more than 3 machines" in text
    assert text.count('class="action-select"') == 3
    assert "1 machine" in page(admin, Machine, "?q=db-0")


def test_every_page_of_a_list_has_its_own_rows(
    admin: Client, machines: list[V1Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    from turku.api.admin.model_admin import TurkuModelAdmin

    monkeypatch.setattr(TurkuModelAdmin, "list_per_page", 3)
    first, second = page(admin, Machine), page(admin, Machine, "?p=2")
    shown = [{machine.uuid for machine in machines if machine.uuid in text} for text in (first, second)]
    assert first.count('class="action-select"') == 3
    assert second.count('class="action-select"') == 1
    assert not shown[0] & shown[1]
    assert page(admin, Machine, "?all=").count('class="action-select"') == 4


def test_a_list_asks_as_often_for_many_rows_as_for_one(admin: Client, cast: Cast) -> None:
    def queries(model: Any) -> int:
        with CaptureQueriesContext(connection) as captured:
            page(admin, model)
        return len(captured)

    before = {model: queries(model) for model in (Machine, Storage, Source, BackupRun, SourceChange)}
    for number in range(5):
        machine = cast.machine(unit_name=f"more-{number}")
        machine.update_config({"etc": {"path": "/etc"}})
        machine.update_config({"etc": {"path": "/etc", "exclude": ["*"]}})
        cast.bob.failed(machine.uuid, "etc")
    for model, count in before.items():
        # An empty list does not ask for its rows.
        assert count <= queries(model) <= count + 1, model


def test_a_word_finds_machines_by_names_in_any_case_and_by_uuid(machines: list[V1Machine]) -> None:
    assert units(["MAIL"]) == ["Mail-0", "mail-1"]
    assert units(["office", "-0"]) == ["Mail-0", "db-0"]
    assert units(["abcdef00-0000"]) == ["Mail-0", "mail-1"]
    assert units([machines[1].uuid.upper()]) == ["mail-1"]
    assert units(["nobody"]) == []
    assert units(["%"]) == []


@pytest.mark.parametrize("few", [0, 1000])
def test_a_word_finds_sources_and_runs_by_their_own_names_and_their_machines(
    machines: list[V1Machine], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing counts as few, or everything: the two ways must find the same.
    monkeypatch.setattr(search, "FEW_LIMIT", few)
    monkeypatch.setattr("turku.api.backups.search.FEW_LIMIT", few)

    def sources(*words: str) -> list[tuple[str, str]]:
        found = Source.objects.filter(matching_sources(words))
        return sorted(found.values_list("machine__unit_name", "name"))

    assert sources("spool", "mail") == [("Mail-0", "spool"), ("mail-1", "spool")]
    assert sources("var/spool", "db-0") == [("db-0", "spool")]
    assert sources(machines[2].uuid) == [("db-0", "etc"), ("db-0", "spool")]
    key = Source.objects.get(machine__unit_name="db-0", name="etc").pk
    assert sources(str(key)) == [("db-0", "etc")]
    assert BackupRun.objects.filter(matching_runs(["mail-0"])).count() == 2
    assert BackupRun.objects.filter(matching_runs(["etc", "mail-0"])).get().success
    assert BackupRun.objects.filter(matching_runs(["etc_20261123-120000_0a1b"])).count() == 1


def test_the_audit_log_is_searched_by_machine_address_and_action(admin: Client, machines: list[V1Machine]) -> None:
    def actions(*words: str) -> list[str]:
        return sorted(AuditEntry.objects.filter(matching_entries(words)).values_list("action", flat=True))

    assert actions("mail-1", "machine.registered") == ["machine.registered"]
    assert actions(machines[1].uuid) == ["machine.registered", "source.added", "source.added"]
    assert actions("192.0.2.1") == []
    assert len(actions("127.0.0.1")) == AuditEntry.objects.filter(address="127.0.0.1").count() > 0
    text = page(admin, AuditEntry, "?action=source.added")
    assert f"{AuditEntry.objects.filter(action='source.added').count()} audit log" in text


def test_filters_by_mark_find_the_rows_that_show_it(cast: Cast, machines: list[V1Machine]) -> None:
    now = SYSTEM_CLOCK.now()
    long_ago = now - timedelta(days=3)
    Machine.objects.filter(unit_name="mail-1").update(published=False)
    Machine.objects.filter(unit_name="db-0").update(date_checked_in=long_ago)
    Machine.objects.filter(uuid=cast.alice.uuid).update(storage=None, date_registered=long_ago)
    Source.objects.filter(machine__unit_name="db-0", name="etc").update(date_next_backup=long_ago, quarantined=True)
    Source.objects.filter(machine__unit_name="db-0", name="spool").update(date_next_backup=long_ago)
    for rows, conditions in (
        (fleet_marks.storages(now=now), fleet_marks.storage_conditions(now=now)),
        (fleet_marks.machines(now=now), fleet_marks.machine_conditions(now=now)),
        (source_marks.sources(now=now), source_marks.conditions(now=now)),
    ):
        shown: dict[Mark, set[Any]] = {mark: set() for mark in Mark}
        for row in rows:
            shown[Mark(row.mark)].add(row.pk)
        for mark in Mark:
            assert {row.pk for row in rows.filter(has_mark(conditions, [mark]))} == shown[mark], mark
        problems = [mark for mark in Mark if mark.is_problem]
        expected = set().union(*(shown[mark] for mark in problems))
        assert {row.pk for row in rows.filter(has_mark(conditions, problems))} == expected
    assert {row.mark for row in fleet_marks.machines(now=now)} == {"off", "failed", "quarantined", "unassigned"}
    assert {row.mark for row in source_marks.sources(now=now)} == {"ok", "off", "failed", "overdue", "quarantined"}


def test_calls_pass_by_what_pages_need(cast: Cast) -> None:
    client = Client(raise_request_exception=False)
    answer = client.post("/v1/health", b"{}", content_type="application/json")
    assert answer.status_code == 200
    assert not answer.cookies
    assert "X-Frame-Options" not in answer.headers
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    foreign = client.post("/v1/health", b"{}", content_type="application/json", headers={"Host": "evil.example.com"})
    assert foreign.status_code == 400
    assert "Host" in foreign.json()["error"]
    assert client.get("/v1/no-such-call").status_code == 404
