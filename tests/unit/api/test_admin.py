"""The admin site: every list and page, marks, actions, and the number of queries."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import formats
from tests.support.api_cast import Cast

from turku.api.admin import presentation
from turku.api.audit.models import AuditEntry
from turku.api.backups.models import BackupRun, Source, SourceChange
from turku.api.fleet.models import Auth, FilterSet, Machine, Policy, Storage
from turku.core.clock import SYSTEM_CLOCK
from turku.protocol import join_token
from turku.protocol.join_token import JoinKind

MODELS = (Auth, Storage, Machine, Policy, FilterSet, Source, BackupRun, SourceChange, AuditEntry, User)


@pytest.fixture
def admin(cast: Cast) -> Client:
    """A superuser's browser. Alice has a good and a failed run, a policy, and a change that weakens protection."""
    cast.bob.succeeded(cast.alice.uuid, "etc")
    cast.bob.failed(cast.alice.uuid, "home")
    FilterSet.objects.create(name="logs", rules=["- *.log"])
    Policy.objects.create(machine=Machine.objects.get(), retention_floor="last 3 days")
    cast.alice.update_config({"etc": {"path": "/etc", "exclude": ["*.log"]}, "home": {"path": "/home"}})
    client = Client()
    client.force_login(User.objects.create_superuser("root", password="correct horse battery"))
    return client


def address(model: Any, page: str, *arguments: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=arguments)


def page(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200, url
    return response.content.decode()


@pytest.mark.parametrize("model", MODELS)
def test_every_list_search_and_page_opens_without_hashes(admin: Client, model: Any) -> None:
    row = model.objects.all()[0]
    for url in (
        address(model, "changelist"),
        address(model, "changelist") + "?q=web",
        address(model, "change", row.pk),
    ):
        assert getattr(row, "secret_hash", "no such column") not in page(admin, url)


def test_the_front_page_leads_to_the_admin(client: Client, db: None) -> None:
    response = client.get("/")
    assert (response.status_code, response.headers["Location"]) == (302, "/admin/")
    assert "Turku" in page(client, "/admin/login/")


def test_marks_are_words_and_filters(admin: Client) -> None:
    sources = address(Source, "changelist")
    assert '<span class="mark mark-failed">failed</span>' in page(admin, sources)
    assert "1 source" in page(admin, f"{sources}?mark=failed")
    assert "1 source" in page(admin, f"{sources}?mark=problem")
    assert "0 machines" in page(admin, f"{address(Machine, 'changelist')}?mark=silent")
    assert "1 storage" in page(admin, f"{address(Storage, 'changelist')}?mark=ok")
    # A storage is never damaged, and the whole list would look like the answer.
    assert "0 storages" in page(admin, f"{address(Storage, 'changelist')}?mark=damaged")


def test_links_lead_to_related_objects(admin: Client) -> None:
    machine = Machine.objects.get()
    text = page(admin, address(Machine, "changelist"))
    assert address(Storage, "change", machine.storage_id) in text
    links = re.findall(r'href="(/[^"]+__id__exact=[^"]+)"', text)
    assert links
    links += re.findall(r'href="(/[^"]+__id__exact=[^"]+)"', page(admin, address(Machine, "change", machine.pk)))
    for link in links:
        assert re.search(r"\b[12] (machine|source|backup run|weakening change)", page(admin, link)), link


@pytest.mark.parametrize(("action", "active"), [("disable", False), ("enable", True)])
@pytest.mark.parametrize("model", [Auth, Storage, Machine, FilterSet, Source])
def test_the_operators_switch(admin: Client, model: Any, action: str, active: bool) -> None:
    model.objects.update(active=not active)
    keys = [str(key) for key in model.objects.values_list("pk", flat=True)]
    admin.post(address(model, "changelist"), {"action": action, "_selected_action": keys})
    assert set(model.objects.values_list("active", flat=True)) == {active}


@pytest.mark.parametrize("model", [Machine, Source])
def test_back_up_now(admin: Client, cast: Cast, model: Any) -> None:
    assert cast.alice.due() == {}
    keys = [str(key) for key in model.objects.values_list("pk", flat=True)]
    admin.post(address(model, "changelist"), {"action": "back_up_now", "_selected_action": keys})
    assert set(cast.alice.due()) == {"etc", "home"}


def test_a_new_auths_secret_is_shown_once_and_works(admin: Client, cast: Cast) -> None:
    form = {"name": "site two", "kind": "machine_reg", "active": "on", "comment": ""}
    response = admin.post(address(Auth, "add"), form)
    assert "no-store" in response.headers["Cache-Control"]
    found = re.search(r'<code class="secret-once">(\w{30})</code>', response.content.decode())
    assert found
    carol = cast.machine()
    carol.auth = {"name": "site two", "secret": found[1]}
    carol.update_config({})
    assert found[1] not in page(admin, address(Auth, "changelist"))


def test_a_join_token_is_shown_once_where_the_address_is_known(admin: Client, cast: Cast, settings: Any) -> None:
    settings.TURKU_ENVIRONMENT = replace(settings.TURKU_ENVIRONMENT, url="https://turku.example.com")
    assert 'name="uses_limit" value="1"' in page(admin, address(Auth, "add"))
    form = {"name": "office", "kind": "machine_reg", "active": "on", "comment": "", "uses_limit": "1"}
    ends = {"date_ends_0": "2999-01-01", "date_ends_1": "12:00"}
    response = admin.post(address(Auth, "add"), {**form, **ends})
    found = re.search(r"turku-agent setup (turku-machine-\S+?)<", response.content.decode())
    assert found
    token = join_token.decode(found[1], kind=JoinKind.MACHINE)
    assert token.url == "https://turku.example.com/v1"
    carol = cast.machine()
    carol.auth = token.secret.reveal()
    carol.update_config({})
    shown = page(admin, address(Auth, "changelist"))
    assert "used up" in shown
    assert "1 of 1" in shown
    assert found[1] not in shown


def test_filter_sets_are_edited_as_lines_and_checked(admin: Client) -> None:
    url = address(FilterSet, "add")
    admin.post(url, {"name": "caches", "active": "on", "lines": "- /var/cache/***\r\nmerge logs\r\n", "comment": ""})
    assert FilterSet.objects.get(name="caches").rules == ["- /var/cache/***", "merge logs"]
    response = admin.post(url, {"name": "bad", "active": "on", "lines": "what is this", "comment": ""})
    assert "errorlist" in response.content.decode()
    assert not FilterSet.objects.filter(name="bad").exists()


def test_values_of_machines_are_shown_as_text(admin: Client, cast: Cast) -> None:
    cast.alice.update_config({"etc": {"path": "/etc/<script>alert(1)</script>"}})
    text = page(admin, address(Source, "changelist"))
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_pages_carry_the_security_headers(admin: Client) -> None:
    headers = admin.get("/admin/").headers
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "<style" not in page(admin, "/admin/")


def queries(act: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as captured:
        act()
    return len(captured.captured_queries)


@pytest.mark.parametrize("model", MODELS)
def test_lists_cost_the_same_for_few_and_many_rows(admin: Client, cast: Cast, model: Any) -> None:
    url = address(model, "changelist")
    few = queries(lambda: page(admin, url))
    for number in range(8):
        machine = cast.machine(unit_name=f"web-{number + 1}")
        machine.update_config({"etc": {"path": "/etc"}})
        cast.bob.succeeded(machine.uuid, "etc")
        FilterSet.objects.create(name=f"set {number}")
    assert queries(lambda: page(admin, url)) == few


def test_times_are_human_with_the_exact_one_as_title() -> None:
    now = SYSTEM_CLOCK.now()
    assert ">3 h ago<" in presentation.moment(now - timedelta(hours=3, minutes=10), now=now)
    assert ">in 5 min<" in presentation.moment(now + timedelta(minutes=5), now=now)
    assert ">30 h ago<" in presentation.moment(now - timedelta(hours=30), now=now)
    assert ">9 d ago<" in presentation.moment(now - timedelta(days=9, hours=3), now=now)
    assert f'title="{now:%Y-%m-%d %H:%M:%S}' in presentation.moment(now, now=now)
    assert presentation.moment(None, now=now) == "-"


def test_a_change_is_read_on_its_page_and_decided_in_the_list(admin: Client) -> None:
    page = admin.get(address(SourceChange, "change", SourceChange.objects.get().pk)).content.decode()
    assert "<h1>Weakening change</h1>" in page
    assert 'name="_save"' not in page


def test_a_source_that_waits_for_its_turn_is_due() -> None:
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    assert ">in 3 h</time>" in presentation.due(now + timedelta(hours=3), now=now)
    assert presentation.due(now - timedelta(hours=3), now=now).startswith("due <time")
    assert ">3 h ago</time>" in presentation.due(now - timedelta(hours=3), now=now)


def test_times_on_pages_have_24_hours_and_a_zone() -> None:
    assert formats.localize(datetime(2026, 11, 24, 15, 4, 5, tzinfo=UTC)) == "24 Nov 2026, 15:04:05 UTC"
