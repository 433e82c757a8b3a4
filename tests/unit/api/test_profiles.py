"""Profiles at the coordinator: documents, whom they touch, what machines are offered, and what they report."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from tests.support.api_cast import Cast, turku_api
from tests.support.v1_client import V1Machine

from turku.api.audit.models import AuditEntry
from turku.api.backups.models import Source, SourceChange
from turku.api.backups.profiles import document, offers, preview
from turku.api.backups.profiles.models import MachineProfile, ProfilesOfMachine
from turku.api.fleet.models import Machine
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import InvalidValue, UsageError

WEB: dict[str, Any] = {
    "name": "web",
    "comment": "all web servers",
    "machines": {"environment": "shop"},
    "defaults": {"frequency": "daily, 0100-0500", "exclude": ["*.tmp"]},
    "sources": {"www": {"path": "/srv/www", "exclude": ["/cache"]}, "logs": {"path": "/var/log"}},
}


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    offers.forget()


def post(call: str, message: Any, version: str = "v1") -> Any:
    response = Client().post(f"/{version}/{call}", json.dumps(message), content_type="application/json")
    assert response.status_code == 200, response.content
    return json.loads(response.content)


def credentials(machine: V1Machine) -> dict[str, str]:
    return {"uuid": machine.uuid, "secret": machine.secret}


def announced(machine: V1Machine, digest: str | None) -> str | None:
    """The digest that a checkin announces to a machine that has this one (None: accepts no profiles)."""
    message: dict[str, Any] = {"machine": credentials(machine)}
    if digest is not None:
        message["profiles"] = digest
    found: str | None = post("agent_ping_checkin", message)["machine"].get("profiles")
    return found


def offered(machine: V1Machine) -> dict[str, Any]:
    answer = post("agent_profiles", {"machine": credentials(machine)}, "v2")
    return {each["name"]: each["sources"] for each in answer["profiles"]}


def report(machine: V1Machine, sources: dict[str, Any], **more: Any) -> None:
    machine.update_config(sources, environment_name="shop", profiles={"accepts": ["/srv"], **more})


def set_profile(tmp_path: Path, content: dict[str, Any] = WEB, **changes: Any) -> str:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({**content, **changes}))
    code, said = turku_api("profile", "set", str(path), "--yes")
    assert code == 0
    return said


@pytest.mark.usefixtures("cast")
def test_a_document_comes_back_as_it_was_written(tmp_path: Path) -> None:
    set_profile(tmp_path)
    assert json.loads(turku_api("profile", "show", "web", "--document")[1]) == WEB
    assert document.complete(MachineProfile.objects.get()) == {
        "www": {"path": "/srv/www", "frequency": "daily, 0100-0500", "exclude": ["*.tmp", "/cache"]},
        "logs": {"path": "/var/log", "frequency": "daily, 0100-0500", "exclude": ["*.tmp"]},
    }


@pytest.mark.usefixtures("db")
def test_yaml_is_read_as_json_is() -> None:
    text = "name: web\nmachines: all\nsources:\n  etc: {path: /etc}\n"
    assert document.read(text, suffix="") == document.read(
        '{"name": "web", "machines": "all", "sources": {"etc": {"path": "/etc"}}}', suffix=""
    )


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown key": ({"hooks": {}}, "hooks"),
    "no group": ({"machines": {}}, "machines: names no group"),
    "an unknown condition": ({"machines": {"os": "debian"}}, "os"),
    "an unknown join token": ({"machines": {"join_token": "nobody"}}, "machines.join_token"),
    "no source": ({"sources": {}}, "sources"),
    "a bad name": ({"sources": {"../x": {"path": "/x"}}}, "sources: "),
    "two names alike": ({"sources": {"a": {"path": "/x"}, "A": {"path": "/x"}}}, "differ only by case"),
    "two dots": ({"sources": {"a": {"path": "/srv/../etc"}}}, "sources.a: path"),
    "no path": ({"sources": {"a": {}}}, "sources.a: path: is required"),
    "a path for all": ({"defaults": {"path": "/etc"}}, "defaults: path"),
    "a program": ({"sources": {"a": {"path": "/x", "gonogo_program": "id"}}}, "'gonogo_program' may not come"),
    "no history": ({"sources": {"a": {"path": "/x", "snapshot_mode": "none"}}}, "'snapshot_mode' may not come"),
    "a filter set": ({"sources": {"a": {"path": "/x", "filter": ["merge logs"]}}}, "filter"),
    "a bad schedule": ({"defaults": {"frequency": "sometimes"}}, "frequency"),
    "a bad name of its own": ({"name": " web"}, "is not a profile name"),
}


@pytest.mark.usefixtures("cast")
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_document_is_refused_with_its_place(tmp_path: Path, wrong: str) -> None:
    changes, sentence = WRONG[wrong]
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({**WEB, **changes}))
    with pytest.raises(UsageError) as refused:
        turku_api("profile", "set", str(path), "--yes")
    assert sentence in str(refused.value.message)
    assert not MachineProfile.objects.exists()


@pytest.mark.parametrize(
    "content", [b"", b"[", b"\xff", b"7", b"{" * 100_000, b'{"name": 1}', b" " * 2**21], ids=lambda each: each[:8]
)
@pytest.mark.usefixtures("db")
def test_what_is_no_document_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        turku_api("profile", "preview", str(path))


@pytest.mark.usefixtures("cast")
def test_nothing_is_saved_where_nobody_can_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(WEB))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"y\n")))
    with pytest.raises(UsageError, match="nobody can be asked"):
        turku_api("profile", "set", str(path))
    assert not MachineProfile.objects.exists()


def test_only_the_machines_of_the_group_are_offered_it(cast: Cast, tmp_path: Path) -> None:
    in_shop, elsewhere = cast.machine(unit_name="a"), cast.machine(unit_name="b")
    in_shop.update_config({}, environment_name="shop", service_name="web")
    elsewhere.update_config({}, environment_name="office", service_name="web")
    set_profile(tmp_path)
    assert set(offered(in_shop)) == {"web"}
    assert offered(elsewhere) == {}
    set_profile(tmp_path, machines={"environment": "office", "service": "mail"})
    offers.forget()
    assert (offered(in_shop), offered(elsewhere)) == ({}, {})
    set_profile(tmp_path, machines={"service": "web", "join_token": "machines"})
    assert set(offered(in_shop)) == set(offered(elsewhere)) == {"web"}
    set_profile(tmp_path, machines="all")
    assert set(offered(cast.alice)) == {"web"}


def test_a_checkin_announces_a_change_once_and_costs_no_query_more(cast: Cast, tmp_path: Path) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    cast.alice.update_config({"etc": {"path": "/etc"}, "home": {"path": "/home"}}, environment_name="shop")
    assert announced(cast.alice, "") is None
    set_profile(tmp_path)
    assert announced(cast.alice, None) is None
    digest = announced(cast.alice, "")
    assert digest
    assert post("agent_profiles", {"machine": credentials(cast.alice)}, "v2")["digest"] == digest
    assert announced(cast.alice, digest) is None
    with CaptureQueriesContext(connection) as captured:
        assert announced(cast.alice, digest) is None
    assert len(captured) == 1
    set_profile(tmp_path, sources={"www": {"path": "/srv/www"}})
    assert announced(cast.alice, digest) not in (None, "", digest)
    turku_api("profile", "remove", "web", "--yes")
    assert announced(cast.alice, digest) == ""


def test_another_process_notices_a_change_within_a_second(
    cast: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast.alice.update_config({}, environment_name="shop")
    assert announced(cast.alice, "") is None
    # As if another process saved it.
    monkeypatch.setattr(offers, "forget", lambda: None)
    set_profile(tmp_path)
    assert announced(cast.alice, "") is None
    now = SYSTEM_CLOCK.monotonic_seconds()
    monkeypatch.setattr(offers._copy, "current_until", now)
    assert announced(cast.alice, "")


def test_the_preview_says_whom_a_profile_touches(cast: Cast, tmp_path: Path) -> None:
    for number, accepts in enumerate((["/srv"], ["/srv", "/var/log"], None)):
        machine = cast.machine(unit_name=f"web-{number}")
        own = {"logs": {"path": "/var/log/own"}} if number == 1 else {}
        profiles = {} if accepts is None else {"profiles": {"accepts": accepts}}
        machine.update_config(own, environment_name="shop", **profiles)
    path = tmp_path / "web.json"
    path.write_text(json.dumps(WEB))
    found = json.loads(turku_api("profile", "preview", str(path), "--json")[1])
    assert (found["change"], found["machines"], found["machines_accepting"]) == ("added", 3, 2)
    assert found["named"] == ["shop-web-0", "shop-web-1", "shop-web-2"]
    by_name = {each["name"]: each for each in found["sources"]}
    assert by_name["www"]["machines_that_accept"] == 2
    assert by_name["logs"]["machines_that_accept"] == 1
    assert found["conflicts"] == ["shop-web-1: logs"]
    assert not MachineProfile.objects.exists(), "a preview saves nothing"
    set_profile(tmp_path)
    assert "Profile web: unchanged" in turku_api("profile", "preview", str(path))[1]
    changed = {
        **WEB,
        "machines": {"environment": "shop", "service": "none"},
        "sources": {"www": {"path": "/srv/www", "exclude": ["/cache", "*.jpg"], "retention": "last 1 days"}},
    }
    path.write_text(json.dumps(changed))
    found = json.loads(turku_api("profile", "preview", str(path), "--json")[1])
    assert (found["change"], found["machines"], found["machines_leaving"]) == ("changed", 0, 3)
    by_name = {each["name"]: each for each in found["sources"]}
    assert by_name["logs"]["change"] == "removed"
    assert by_name["www"]["weakens"] == ["more excluded", "shorter retention"]


def test_reports_are_kept_and_shown(cast: Cast, tmp_path: Path) -> None:
    set_profile(tmp_path)
    report(
        cast.alice,
        {"www": {"path": "/srv/www"}},
        digest="x",
        taken={"www": "web"},
        refused=[{"profile": "web", "source": "logs", "reason": "is not\nbelow"}],
        refused_count=1,
    )
    shown = turku_api("profile", "show", "web")[1]
    assert "taken by 1, refused by 1, 0 accept no profiles" in shown
    assert "refused on shop-web-0: logs: is not\\nbelow" in shown
    shown = turku_api("machine", "show", "web-0")[1]
    assert "accepted below /srv" in shown
    assert "refused: logs of web: is not\\nbelow" in shown
    assert any(line.split("\t")[::5] == ["www", "web"] for line in shown.splitlines())
    assert json.loads(turku_api("machine", "show", "web-0", "--json")[1])["profiles"]["taken"] == {"www": "web"}
    [listed] = json.loads(turku_api("profile", "list", "--json")[1])
    assert (listed["machines"], listed["taken_by"], listed["refused_by"]) == (1, 1, 1)
    date = ProfilesOfMachine.objects.get().date
    report(
        cast.alice,
        {"www": {"path": "/srv/www"}},
        digest="x",
        taken={"www": "web"},
        refused=[{"profile": "web", "source": "logs", "reason": "is not\nbelow"}],
        refused_count=1,
    )
    assert ProfilesOfMachine.objects.get().date == date, "the same report is not written again"
    cast.alice.update_config({})
    assert not ProfilesOfMachine.objects.exists()


def test_what_a_profile_weakens_or_ends_waits_as_the_machine_s_own_changes_do(cast: Cast) -> None:
    report(cast.alice, {"www": {"path": "/srv/www"}}, taken={"www": "web"})
    cast.bob.succeeded(cast.alice.uuid, "www")
    report(cast.alice, {"www": {"path": "/srv/www", "exclude": ["*"]}}, taken={"www": "web"})
    assert SourceChange.objects.get(source__name="www").weakenings == ["more excluded"]
    report(cast.alice, {})
    assert Source.objects.get(name="www").date_withdrawn is not None
    assert "no longer declared" in SourceChange.objects.get(source__name="www").weakenings


@pytest.mark.usefixtures("cast")
def test_each_change_is_in_the_audit_log(tmp_path: Path) -> None:
    set_profile(tmp_path)
    set_profile(tmp_path, sources={"www": {"path": "/srv/www"}})
    turku_api("profile", "remove", "web", "--yes")
    entries = list(AuditEntry.objects.filter(action__startswith="machineprofile.").order_by("pk"))
    assert [(each.action, each.weakens) for each in entries] == [
        ("machineprofile.added", False),
        ("machineprofile.changed", True),
        ("machineprofile.deleted", True),
    ]
    assert entries[1].old["sources"]["logs"] == {"path": "/var/log"}


def test_a_profile_of_a_join_token_keeps_the_token(cast: Cast, tmp_path: Path) -> None:
    set_profile(tmp_path, machines={"join_token": "machines"})
    assert "join token machines" in turku_api("profile", "list")[1]
    assert preview.machines_of(MachineProfile.objects.get()).count() == Machine.objects.count()
    with pytest.raises(InvalidValue):
        document.read("name: web", suffix=".yaml")


# --- the admin site


@pytest.fixture
def admin(cast: Cast) -> Client:
    report(cast.alice, {"www": {"path": "/srv/www"}}, taken={"www": "web"}, refused=[], refused_count=0)
    client = Client()
    client.force_login(User.objects.create_superuser("root", password="correct horse battery"))
    return client


FIELDS = {
    "name": "web",
    "comment": "",
    "environment_name": "shop",
    "service_name": "",
    "auth": "",
    "source_text": '{"www": {"path": "/srv/www"}}',
    "default_text": "",
    "seen": "",
}


def seen_in(text: str) -> str:
    before = text.partition('name="seen"')[2]
    return before.partition('value="')[2].partition('"')[0]


def test_the_site_shows_whom_a_profile_touches_before_it_is_saved(admin: Client) -> None:
    url = reverse("admin:backups_machineprofile_add")
    first = admin.post(url, FIELDS)
    text = first.content.decode()
    assert "Offered to 1 machine, of which 1 accepts profiles: shop-web-0" in text
    assert "Nothing is saved yet" in text
    assert not MachineProfile.objects.exists()
    # Another content than the one that was seen is shown again.
    other = {**FIELDS, "source_text": '{"logs": {"path": "/var/log"}}', "seen": seen_in(text)}
    assert "Nothing is saved yet" in admin.post(url, other).content.decode()
    saved = admin.post(url, {**FIELDS, "seen": seen_in(text)})
    assert saved.status_code == 302
    assert MachineProfile.objects.get().sources == {"www": {"path": "/srv/www"}}
    assert AuditEntry.objects.get(action="machineprofile.added").actor == "root"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"source_text": "{"}, "cannot be read"),
        ({"source_text": "[]"}, "Expected"),
        ({"source_text": '{"a": {"path": "/x", "snapshot_mode": "none"}}'}, "may not come from a profile"),
        ({"environment_name": ""}, "Choose all machines"),
        ({"all_machines": "on"}, "Choose all machines"),
        ({"name": "a\u202eb"}, "name"),
    ],
)
def test_the_site_refuses_what_the_command_refuses(admin: Client, changes: dict[str, str], sentence: str) -> None:
    response = admin.post(reverse("admin:backups_machineprofile_add"), {**FIELDS, **changes})
    assert response.status_code == 200
    assert sentence in response.content.decode()
    assert not MachineProfile.objects.exists()


def test_the_pages_show_what_machines_made_of_it(admin: Client, tmp_path: Path) -> None:
    set_profile(tmp_path)
    profile = MachineProfile.objects.get()
    for page, arguments in (("changelist", []), ("change", [profile.pk]), ("delete", [profile.pk])):
        response = admin.get(reverse(f"admin:backups_machineprofile_{page}", args=arguments))
        assert response.status_code == 200
        if page == "change":
            assert "1 of 1 machine" in response.content.decode()
        if page == "delete":
            assert "What 1 machine took of web is withdrawn" in response.content.decode()
    machine = admin.get(reverse("admin:fleet_machine_change", args=[Machine.objects.get().pk])).content.decode()
    assert "www (web)" in machine
