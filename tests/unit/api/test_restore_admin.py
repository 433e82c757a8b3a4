"""Restore requests in the admin site and by the console's calls: who may do what, and what is seen."""

import json
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from tests.support.api_cast import Cast, turku_api
from tests.support.restore_requests import ANN, BEN, Pickup, ask_for, row_of

from turku.api.audit.models import AuditEntry
from turku.api.restores import transitions
from turku.api.restores.models import RequestState, RestorePolicy, RestoreRequest
from turku.core.clock import SYSTEM_CLOCK

LIST = "/admin/restores/restorerequest/"


def person(name: str, *permissions: str, is_superuser: bool = False) -> Client:
    """The browser of somebody with these permissions."""
    if is_superuser:
        user = User.objects.create_superuser(name, password="correct horse battery")
    else:
        user = User.objects.create_user(name, password="correct horse battery", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def ann(cast: Cast) -> Client:
    """Asks for restores."""
    return person("ann", "add_restorerequest", "view_restorerequest", "view_machine")


@pytest.fixture
def ben(cast: Cast) -> Client:
    """Approves them."""
    return person("ben", "approve_restorerequest", "view_restorerequest")


@pytest.fixture
def vera(cast: Cast) -> Client:
    """Looks."""
    return person("vera", "view_restorerequest")


def wish(cast: Cast, **other: Any) -> dict[str, Any]:
    """The form, filled in."""
    return {
        "machine": row_of(cast.alice).pk,
        "source_name": "etc",
        "path_lines": "ssh/sshd_config\nhosts\n",
        "snapshot": "",
        "moment": "",
        "target": "",
        "directory": "/srv/restored",
        "overwrite": "never",
        "reason": "deleted by mistake",
        "days": "7",
        **other,
    }


def act(client: Client, action: str, request: RestoreRequest) -> str:
    """Return the text of the list after an action."""
    return client.post(LIST, {"action": action, "_selected_action": [str(request.pk)]}, follow=True).content.decode()


class TestForm:
    def test_makes_a_request_that_the_audit_log_has_once(self, cast: Cast, ann: Client) -> None:
        assert ann.get(f"{LIST}add/").status_code == 200
        response = ann.post(f"{LIST}add/", wish(cast))
        assert response.status_code == 302, response.context["adminform"].form.errors
        request = RestoreRequest.objects.get()
        assert (request.requested_by, request.paths) == ("ann", ["ssh/sshd_config", "hosts"])
        assert request.target == request.source.machine == row_of(cast.alice)
        (entry,) = AuditEntry.objects.filter(subject_key=str(request.pk))
        assert (entry.action, entry.actor, entry.new["reason"]) == ("restore.requested", "ann", "deleted by mistake")

    @pytest.mark.parametrize(
        ("field", "value", "problem"),
        [
            ("source_name", "nothing", "The machine has: etc, home"),
            ("directory", "/srv/../etc", "&#x27;..&#x27; in it"),
            ("moment", "soon", "is not a valid time"),
            ("path_lines", "../x", "could lead out"),
            ("reason", "", "This field is required"),
        ],
    )
    def test_says_what_is_wrong(self, cast: Cast, ann: Client, field: str, value: str, problem: str) -> None:
        response = ann.post(f"{LIST}add/", wish(cast, **{field: value}))
        assert problem in response.content.decode()
        assert not RestoreRequest.objects.exists()

    def test_is_for_those_who_may_ask(self, cast: Cast, ben: Client) -> None:
        assert ben.get(f"{LIST}add/").status_code == 403
        assert ben.post(f"{LIST}add/", wish(cast)).status_code == 403


class TestList:
    def test_shows_state_progress_and_who(self, cast: Cast, vera: Client) -> None:
        request = ask_for(cast.alice)
        transitions.approve(request, actor=BEN, now=SYSTEM_CLOCK.now())
        agent = Pickup(cast.alice)
        agent.tell(request, "picked_up")
        agent.tell(request, "running", files=1200, files_total=5000, size_bytes=24, size_total_bytes=100)
        text = vera.get(LIST).content.decode()
        for shown in ("running", "1,200 of 5,000 files, 24%", "ann, ben", "/srv/restored"):
            assert shown in text

    def test_says_why_a_request_waits(self, cast: Cast, vera: Client) -> None:
        request = ask_for(cast.alice)
        transitions.approve(request, actor=BEN, now=SYSTEM_CLOCK.now())
        assert "has not checked in since" in vera.get(LIST).content.decode()
        row = row_of(cast.alice)
        row.date_checked_in = SYSTEM_CLOCK.now()
        row.save()
        assert "an agent of the existing system never does" in vera.get(LIST).content.decode()

    def test_costs_the_same_for_one_and_many(self, cast: Cast, vera: Client) -> None:
        counts = []
        for number in (1, 20):
            for _ in range(number):
                ask_for(cast.alice)
            with CaptureQueriesContext(connection) as captured:
                assert vera.get(LIST).status_code == 200
            counts.append(len(captured))
        assert counts[0] == counts[1]

    def test_pages_searches_and_filters_open(self, cast: Cast, vera: Client) -> None:
        request = ask_for(cast.alice, paths=[b"\xff<b>"])
        text = vera.get(f"{LIST}{request.pk}/change/").content.decode()
        assert "\\xff&lt;b&gt;" in text
        assert "_save" not in text
        for query in ("?q=web", "?progress=open", "?progress=over", "?state=requested", "?progress=approval"):
            assert vera.get(LIST + query).status_code == 200
        assert "1 restore request" in vera.get(f"{LIST}?progress=approval").content.decode()
        assert "0 restore requests" in vera.get(f"{LIST}?progress=over").content.decode()

    def test_nobody_deletes_or_changes_a_request(self, cast: Cast) -> None:
        root = person("root", is_superuser=True)
        request = ask_for(cast.alice)
        assert root.post(f"{LIST}{request.pk}/delete/", {"post": "yes"}).status_code == 403
        assert root.post(f"{LIST}{request.pk}/change/", wish(cast, directory="/x")).status_code == 403
        assert "delete_selected" not in root.get(LIST).content.decode()

    def test_a_request_goes_with_its_machine(self, cast: Cast) -> None:
        root = person("root", is_superuser=True)
        ask_for(cast.alice)
        machine = row_of(cast.alice)
        assert root.post(f"/admin/fleet/machine/{machine.pk}/delete/", {"post": "yes"}).status_code == 302
        assert not RestoreRequest.objects.exists()
        other = person("other", "delete_machine", "view_machine")
        turku_api("machine", "readmit", cast.alice.uuid)
        cast.alice.update_config({"etc": {"path": "/etc"}})
        machine = row_of(cast.alice)
        assert other.post(f"/admin/fleet/machine/{machine.pk}/delete/", {"post": "yes"}).status_code == 403, (
            "who may not delete sources deletes no machine that has some"
        )
        form = {"action": "remove", "_selected_action": [machine.pk], "confirmed": "yes", "history": "keep"}
        assert other.post("/admin/fleet/machine/", form).status_code == 403


class TestActions:
    def test_approve_and_cancel(self, cast: Cast, ben: Client, ann: Client) -> None:
        request = ask_for(cast.alice)
        assert "1 approved." in act(ben, "approve", request)
        request.refresh_from_db()
        assert (request.state, request.approvers) == (RequestState.WAITING, ("ben",))
        assert "cannot be approved any more" in act(ben, "approve", request)
        assert "1 cancelled." in act(ann, "cancel", request)

    def test_reject(self, cast: Cast, ben: Client) -> None:
        request = ask_for(cast.alice)
        assert "1 rejected." in act(ben, "reject", request)
        assert "cannot be cancelled any more: it is rejected by ben" in act(ben, "cancel", request)

    @pytest.mark.parametrize("action", ["approve", "reject"])
    def test_are_for_those_who_may(self, cast: Cast, ann: Client, action: str) -> None:
        request = ask_for(cast.alice)
        act(ann, action, request)
        request.refresh_from_db()
        assert request.state == RequestState.REQUESTED

    def test_a_viewer_cannot_cancel(self, cast: Cast, vera: Client) -> None:
        request = ask_for(cast.alice)
        act(vera, "cancel", request)
        request.refresh_from_db()
        assert request.state == RequestState.REQUESTED


def test_a_policy_is_made_and_listed(cast: Cast) -> None:
    root = person("root", is_superuser=True)
    form = {"auth": "", "machine": row_of(cast.alice).pk, "history_visible": "false", "approvals": "2", "comment": ""}
    assert root.post("/admin/restores/restorepolicy/add/", {**form, "other_machines": "unknown"}).status_code == 302
    policy = RestorePolicy.objects.get()
    assert (policy.history_visible, policy.approvals, policy.other_machines) == (False, 2, None)
    assert "two operators" in root.get("/admin/restores/restorepolicy/").content.decode()
    assert AuditEntry.objects.filter(action="restorepolicy.added").count() == 1


class TestConsoleCalls:
    def call(self, client: Client, name: str, message: Any) -> tuple[int, Any]:
        response = client.post(f"/v2/{name}", json.dumps(message), content_type="application/json")
        return response.status_code, json.loads(response.content)

    def wanted(self, cast: Cast, **other: Any) -> dict[str, Any]:
        wanted = {"machine": cast.alice.uuid, "source": "etc", "directory": "/srv/restored", "reason": "lost"}
        return {**wanted, "paths": ["hosts", {"b64": "/w=="}], **other}

    def test_ask_approve_cancel_and_list(self, cast: Cast, ann: Client, ben: Client) -> None:
        status, made = self.call(ann, "restore_request", self.wanted(cast))
        assert (status, made["state"], made["requested_by"]) == (200, "requested", "ann")
        assert made["paths"] == ["hosts", {"b64": "/w=="}]
        status, answer = self.call(ben, "restore_request_approve", {"request": made["id"]})
        assert (status, answer["state"], answer["approved_by"]) == (200, "waiting", ["ben"])
        assert self.call(ben, "restore_request_reject", {"request": made["id"]})[0] == 409
        assert [row["id"] for row in self.call(ann, "restore_request_list", {})[1]["requests"]] == [made["id"]]
        assert self.call(ann, "restore_request_cancel", {"request": made["id"]})[1]["state"] == "cancelled"
        assert self.call(ann, "restore_request_list", {})[1]["requests"] == []
        assert len(self.call(ann, "restore_request_list", {"with_over": True})[1]["requests"]) == 1

    @pytest.mark.parametrize(
        "name", ["restore_request", *(f"restore_request_{verb}" for verb in ("approve", "reject", "cancel", "list"))]
    )
    def test_want_a_session(self, cast: Cast, name: str) -> None:
        assert self.call(Client(), name, {})[0] == 401

    def test_want_a_permission(self, cast: Cast, vera: Client, ann: Client) -> None:
        request = ask_for(cast.alice)
        assert self.call(vera, "restore_request", self.wanted(cast))[0] == 403
        for verb in ("approve", "reject"):
            assert self.call(ann, f"restore_request_{verb}", {"request": str(request.pk)})[0] == 403
        assert self.call(vera, "restore_request_cancel", {"request": str(request.pk)})[0] == 403
        request.refresh_from_db()
        assert request.state == RequestState.REQUESTED

    def test_want_the_token_against_forged_requests(self, cast: Cast, ann: Client) -> None:
        strict = Client(enforce_csrf_checks=True)
        strict.cookies = ann.cookies
        response = strict.post("/v2/restore_request", json.dumps(self.wanted(cast)), content_type="application/json")
        assert response.status_code == 403
        assert not RestoreRequest.objects.exists()

    @pytest.mark.parametrize(
        ("changed", "status"),
        [
            ({"machine": "x"}, 400),
            ({"machine": "00000000-0000-4000-8000-000000000000"}, 404),
            ({"onto": "00000000-0000-4000-8000-000000000000"}, 404),
            ({"source": "nothing"}, 404),
            ({"directory": "etc"}, 400),
            ({"reason": "a\0b"}, 400),
            ({"paths": ["../x"]}, 400),
            ({"overwrite": "perhaps"}, 400),
        ],
    )
    def test_refuse_what_makes_no_sense(self, cast: Cast, ann: Client, changed: dict[str, Any], status: int) -> None:
        assert self.call(ann, "restore_request", self.wanted(cast, **changed))[0] == status
        assert not RestoreRequest.objects.exists()

    def test_are_called_with_post(self, cast: Cast, ann: Client) -> None:
        assert ann.get("/v2/restore_request").status_code == 405
        assert ann.post("/v2/restore_request_nonsense", "{}", content_type="application/json").status_code == 404
        assert ANN.name == "ann"
