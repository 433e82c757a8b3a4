"""Restore requests, from the wish to the outcome."""

from datetime import timedelta
from typing import Any

import pytest
from tests.support.api_cast import Cast, turku_api
from tests.support.restore_requests import ANN, BEN, EVE, Pickup, Refused, ask_for, request_access, row_of
from tests.support.v1_client import V1Machine, V1Storage

from turku.api.audit.models import AuditEntry
from turku.api.cli import PROGRAM
from turku.api.fleet.identity import auths
from turku.api.fleet.models import AuthKind, Machine, Storage
from turku.api.restores import description, transitions
from turku.api.restores.models import IN_PROGRESS, RequestState, RestorePolicy, RestoreRequest
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import InvalidValue, UsageError


def now() -> Any:
    return SYSTEM_CLOCK.now()


def approved(request: RestoreRequest) -> RestoreRequest:
    transitions.approve(request, actor=BEN, now=now())
    return request


def actions() -> list[str]:
    return list(
        AuditEntry.objects.filter(action__startswith="restore.").order_by("id").values_list("action", flat=True)
    )


@pytest.fixture
def bella(cast: Cast) -> V1Machine:
    """A machine of the same Auth as Alice, on another storage."""
    V1Storage(cast.bob.post, auth=cast.bob.auth, name="carol").update_config()
    machine = cast.machine(unit_name="web-1")
    machine.update_config({"etc": {"path": "/etc"}})
    Machine.objects.filter(uuid=machine.uuid).update(storage=Storage.objects.get(name="carol"))
    return machine


def test_a_request_goes_its_way_from_wish_to_outcome(cast: Cast) -> None:
    request = ask_for(cast.alice, paths=[b"ssh//sshd_config", b"\xff"], snapshot="etc_20261124-084122_8491")
    agent = Pickup(cast.alice)
    assert (request.state, agent.offered()) == (RequestState.REQUESTED, [])
    approved(request)
    (order,) = agent.offered()
    assert order["storage"].pop("ssh_ping_host_keys")
    assert order == {
        "request": str(request.pk),
        "source": "etc",
        "storage": {
            "name": "primary",
            "ssh_ping_host": "primary.example.com",
            "ssh_ping_port": 22,
            "ssh_ping_user": "root",
        },
        "directory": "/srv/restored",
        "overwrite": "never",
        "snapshot": {"name": "etc_20261124-084122_8491"},
        "paths": ["ssh/sshd_config", {"b64": "/w=="}],
    }
    assert agent.tell(request, "picked_up") == {"go_on": True}
    assert agent.offered() == [], "it is held by a run now"
    assert agent.tell(request, "running", files=1, size_bytes=10, files_total=2, size_total_bytes=20)["go_on"]
    request.refresh_from_db()
    assert (request.state, request.files, request.files_total) == (RequestState.RUNNING, 1, 2)
    assert agent.tell(request, "running", files=2)["go_on"]
    assert not agent.tell(request, "whole", files=2, size_bytes=20, snapshot="etc_1", message="2 files")["go_on"]
    request.refresh_from_db()
    assert (request.state, request.size_bytes, request.message) == (RequestState.DONE, 20, "2 files")
    assert request.approvers == ("ben",)
    assert request.date_ended is not None
    assert agent.offered() == []
    steps = ["requested", "approved", "picked_up", "running", "ended"]
    assert actions() == [f"restore.{step}" for step in steps]


def test_nothing_of_restores_is_in_an_answer_where_none_waits(cast: Cast) -> None:
    credentials = {"machine": {"uuid": cast.alice.uuid, "secret": cast.alice.secret}}
    ask_for(cast.alice)
    assert set(cast.alice.post("agent_ping_checkin", credentials)[1]["machine"]) == {"scheduled_sources"}


def test_an_agent_of_the_existing_system_leaves_it_waiting(cast: Cast) -> None:
    request = approved(ask_for(cast.alice))
    for _ in range(3):
        assert set(cast.alice.due()) == {"etc", "home"}
    request.refresh_from_db()
    assert request.state == RequestState.WAITING


class TestApproval:
    def test_without_any_the_machine_has_it_at_once(self, cast: Cast) -> None:
        RestorePolicy.objects.create(approvals=0)
        assert ask_for(cast.alice).state == RequestState.WAITING
        assert len(Pickup(cast.alice).offered()) == 1

    def test_by_one_operator_may_be_the_requester_s_own(self, cast: Cast) -> None:
        request = ask_for(cast.alice, actor=ANN)
        transitions.approve(request, actor=ANN, now=now())
        assert request.state == RequestState.WAITING

    def test_by_two_needs_a_second_person_who_did_not_ask(self, cast: Cast) -> None:
        RestorePolicy.objects.create(machine=row_of(cast.alice), approvals=2)
        request = ask_for(cast.alice, actor=ANN)
        transitions.approve(request, actor=BEN, now=now())
        assert request.state == RequestState.REQUESTED
        for again in (BEN, ANN):
            with pytest.raises(UsageError, match="somebody other"):
                transitions.approve(request, actor=again, now=now())
        transitions.approve(request, actor=EVE, now=now())
        assert (request.state, request.approvers) == (RequestState.WAITING, ("ben", "eve"))

    def test_the_stricter_of_two_machines_policies_counts(self, cast: Cast, bella: V1Machine) -> None:
        RestorePolicy.objects.create(machine=row_of(cast.alice), approvals=0)
        RestorePolicy.objects.create(machine=row_of(bella), approvals=2)
        assert ask_for(cast.alice).approvals_needed == 0
        assert ask_for(cast.alice, target=row_of(bella)).approvals_needed == 2

    def test_nobody_approves_what_is_over(self, cast: Cast) -> None:
        request = ask_for(cast.alice)
        transitions.reject(request, actor=BEN, now=now())
        with pytest.raises(UsageError, match="is rejected by ben"):
            transitions.approve(request, actor=BEN, now=now())
        with pytest.raises(UsageError, match="cannot be rejected"):
            transitions.reject(request, actor=BEN, now=now())

    def test_nobody_approves_what_expired(self, cast: Cast) -> None:
        request = ask_for(cast.alice, days=1)
        with pytest.raises(UsageError, match="is expired"):
            transitions.approve(request, actor=BEN, now=now() + timedelta(days=2))


class TestCancel:
    @pytest.mark.parametrize("stage", ["requested", "waiting", "picked_up", "running"])
    def test_works_at_each_stage(self, cast: Cast, stage: str) -> None:
        request, agent = ask_for(cast.alice), Pickup(cast.alice)
        if stage != "requested":
            approved(request)
        if stage in IN_PROGRESS:
            agent.tell(request, "picked_up")
        if stage == "running":
            agent.tell(request, "running")
        request.refresh_from_db()
        assert request.state == stage
        transitions.cancel(request, actor=ANN, now=now())
        assert request.state == RequestState.CANCELLED
        assert agent.offered() == []
        with pytest.raises(UsageError, match="is cancelled by ann"):
            transitions.cancel(request, actor=ANN, now=now())

    def test_reaches_the_machine_with_its_next_report(self, cast: Cast) -> None:
        request, agent = approved(ask_for(cast.alice)), Pickup(cast.alice)
        agent.tell(request, "picked_up")
        transitions.cancel(request, actor=ANN, now=now())
        assert agent.tell(request, "running", files=3) == {"go_on": False, "reason": "the request is cancelled by ann"}
        agent.tell(request, "cancelled", files=4, message="ended after 4 files")
        request.refresh_from_db()
        assert (request.state, request.files, request.message) == (RequestState.CANCELLED, 4, "ended after 4 files")

    def test_an_outcome_that_comes_later_does_not_undo_it(self, cast: Cast) -> None:
        request, agent = approved(ask_for(cast.alice)), Pickup(cast.alice)
        agent.tell(request, "picked_up")
        transitions.cancel(request, actor=ANN, now=now())
        agent.tell(request, "whole", files=4)
        request.refresh_from_db()
        assert (request.state, request.files) == (RequestState.CANCELLED, 4)


class TestPickUp:
    def test_is_answered_again_where_the_answer_was_lost(self, cast: Cast) -> None:
        request, agent = approved(ask_for(cast.alice)), Pickup(cast.alice)
        assert [agent.tell(request, "picked_up") for _ in range(2)] == [{"go_on": True}] * 2
        request.refresh_from_db()
        assert request.attempts == 1

    def test_is_one_run_s_until_it_is_not_heard_of(self, cast: Cast) -> None:
        request, first, second = approved(ask_for(cast.alice)), Pickup(cast.alice), Pickup(cast.alice)
        first.tell(request, "picked_up")
        assert second.tell(request, "picked_up")["reason"] == "another run of this machine has it"
        # As after a kill, and the time of a lease.
        RestoreRequest.objects.update(date_offered=now() - timedelta(seconds=1))
        assert len(second.offered()) == 1
        assert second.tell(request, "picked_up")["go_on"]
        assert first.tell(request, "running") == {"go_on": False, "reason": "another run of this machine has it"}
        assert not first.tell(request, "whole")["go_on"]
        assert second.tell(request, "running")["go_on"]

    def test_a_report_renews_the_lease(self, cast: Cast) -> None:
        request, agent = approved(ask_for(cast.alice)), Pickup(cast.alice)
        agent.tell(request, "picked_up")
        RestoreRequest.objects.update(date_offered=now() - timedelta(seconds=1))
        agent.tell(request, "running")
        assert agent.offered() == []

    def test_a_postponed_restore_is_offered_again_after_a_pause(self, cast: Cast) -> None:
        request, agent = approved(ask_for(cast.alice)), Pickup(cast.alice)
        agent.tell(request, "picked_up")
        agent.tell(request, "postponed", message="the storage cannot be reached")
        request.refresh_from_db()
        assert (request.state, request.message) == (RequestState.WAITING, "the storage cannot be reached")
        assert agent.offered() == []
        RestoreRequest.objects.update(date_offered=now())
        assert Pickup(cast.alice).tell(request, "picked_up")["go_on"]

    @pytest.mark.parametrize(
        ("step", "state"),
        [("refused", RequestState.REFUSED), ("partial", RequestState.PARTIAL), ("failed", RequestState.FAILED)],
    )
    def test_ends_as_the_machine_says(self, cast: Cast, step: str, state: RequestState) -> None:
        request, agent = approved(ask_for(cast.alice)), Pickup(cast.alice)
        agent.tell(request, "picked_up")
        agent.tell(request, step, message="why")
        request.refresh_from_db()
        assert (request.state, request.message) == (state, "why")

    def test_needs_an_approval_and_the_target_s_own_secret(self, cast: Cast, bella: V1Machine) -> None:
        request = ask_for(cast.alice)
        assert not Pickup(cast.alice).tell(request, "picked_up")["go_on"]
        approved(request)
        for key in (request, "00000000-0000-4000-8000-000000000000", "no uuid"):
            with pytest.raises(Refused) as refused:
                Pickup(bella).tell(key, "picked_up")
            assert refused.value.status == 404
        bella.secret = "x" * 30
        with pytest.raises(Refused) as refused:
            Pickup(bella).tell(request, "picked_up")
        assert refused.value.status == 403

    def test_without_a_storage_nothing_is_offered(self, cast: Cast) -> None:
        approved(ask_for(cast.alice))
        Storage.objects.update(active=False)
        assert Pickup(cast.alice).offered() == []


class TestExpiry:
    def test_ends_what_nobody_took_up(self, cast: Cast) -> None:
        waiting, asked = approved(ask_for(cast.alice, days=1)), ask_for(cast.alice, days=1)
        at_work, longer = approved(ask_for(cast.alice, days=1)), ask_for(cast.alice, days=5)
        Pickup(cast.alice).tell(at_work, "picked_up")
        RestoreRequest.objects.filter(pk=at_work.pk).update(date_offered=now() + timedelta(days=3))
        assert transitions.expire(now=now() + timedelta(days=2)) == 2
        states = dict(RestoreRequest.objects.values_list("pk", "state"))
        assert states == {waiting.pk: "expired", asked.pk: "expired", at_work.pk: "picked_up", longer.pk: "requested"}
        assert transitions.expire(now=now() + timedelta(days=2)) == 0
        assert actions().count("restore.expired") == 2

    def test_a_checkin_hears_nothing_of_it(self, cast: Cast) -> None:
        request = approved(ask_for(cast.alice))
        RestoreRequest.objects.update(date_expires=now() - timedelta(seconds=1))
        assert not Pickup(cast.alice).tell(request, "picked_up")["go_on"]
        assert Pickup(cast.alice).offered() == []
        assert not Pickup(cast.alice).tell(request, "picked_up")["go_on"]
        request.refresh_from_db()
        assert request.state == RequestState.EXPIRED


class TestWish:
    @pytest.mark.parametrize(
        ("wish", "problem"),
        [
            ({"directory": "srv"}, "absolute"),
            ({"directory": "/srv/../etc"}, r"\.\."),
            ({"directory": "/srv\n/etc"}, r"U\+000A"),
            ({"paths": [b"../x"]}, r"\.\."),
            ({"paths": [b"/etc/passwd"]}, "absolute"),
            ({"paths": [b"a\0b"]}, "NUL"),
            ({"paths": [b"a%d" % number for number in range(1001)]}, "more than 1000"),
            ({"snapshot": "../x"}, "not a valid snapshot name"),
            ({"snapshot": "x", "moment": "yesterday"}, "not both"),
            ({"moment": "soon"}, "is not a valid time"),
            ({"reason": " \n "}, "needs a reason"),
            ({"reason": "x" * 1001}, "longer"),
            ({"days": 0}, "1 to 90 days"),
        ],
    )
    def test_that_makes_no_sense_is_refused(self, cast: Cast, wish: dict[str, Any], problem: str) -> None:
        with pytest.raises(InvalidValue, match=problem):
            ask_for(cast.alice, **wish)
        assert not RestoreRequest.objects.exists()

    def test_for_a_moment_is_settled_when_it_is_made(self, cast: Cast) -> None:
        request = ask_for(cast.alice, moment="3 days ago")
        assert request.moment[:10] == (now() - timedelta(days=3)).date().isoformat()

    def test_names_its_moment_without_a_fraction(self, cast: Cast) -> None:
        request = ask_for(cast.alice, moment="2026-11-01")
        assert ".999999" in request.moment
        assert "(as of 2026-11-01 23:59:59+00:00)" in description.subject_text(request)

    def test_for_everything_has_no_paths(self, cast: Cast) -> None:
        assert ask_for(cast.alice, paths=[b"ssh", b"./"]).paths == []

    def test_onto_a_machine_of_another_auth_is_a_superuser_s_choice(self, cast: Cast) -> None:
        secret = auths.create(AuthKind.MACHINE, "others", now=now())[1].reveal()
        other = V1Machine(cast.alice.post, auth=secret, unit_name="other")
        other.update_config({})
        with pytest.raises(InvalidValue, match="may not be restored onto"):
            ask_for(cast.alice, target=row_of(other))
        assert ask_for(cast.alice, target=row_of(other), is_superuser=True).target == row_of(other)

    def test_onto_another_machine_can_be_forbidden(self, cast: Cast, bella: V1Machine) -> None:
        assert ask_for(cast.alice, target=row_of(bella))
        RestorePolicy.objects.create(auth=row_of(cast.alice).auth, other_machines=False)
        with pytest.raises(InvalidValue, match="may not be restored onto"):
            ask_for(cast.alice, target=row_of(bella))

    def test_onto_a_machine_that_is_switched_off_is_refused(self, cast: Cast) -> None:
        Machine.objects.update(active=False)
        with pytest.raises(InvalidValue, match="switched off"):
            ask_for(cast.alice)


class TestOntoAnotherMachine:
    def test_its_storage_lets_the_other_machine_in_while_it_lasts(self, cast: Cast, bella: V1Machine) -> None:
        assert set(cast.bob.update_config()) == {cast.alice.uuid}
        request = ask_for(cast.alice, target=row_of(bella))
        assert set(cast.bob.update_config()) == {cast.alice.uuid}
        approved(request)
        admitted = cast.bob.update_config()
        assert set(admitted) == {cast.alice.uuid, bella.uuid}
        assert admitted[bella.uuid]["ssh_public_key"] == " ".join(bella.ssh_public_key.split()[:2])
        assert admitted[bella.uuid]["unit_name"] is None, "it is told the key and no more"
        agent = Pickup(bella)
        (order,) = agent.offered()
        assert (order["of_machine"], order["storage"]["name"]) == (cast.alice.uuid, "primary")
        agent.tell(request, "picked_up")
        assert bella.uuid in cast.bob.update_config()
        agent.tell(request, "whole")
        assert set(cast.bob.update_config()) == {cast.alice.uuid}

    def test_backups_of_the_other_machine_stay_where_they_are(self, cast: Cast, bella: V1Machine) -> None:
        approved(ask_for(cast.alice, target=row_of(bella)))
        with pytest.raises(Refused) as refused:
            cast.bob.due(bella.uuid)
        assert refused.value.status == 404

    def test_a_dead_machine_that_was_switched_off_is_restored_from(self, cast: Cast, bella: V1Machine) -> None:
        Machine.objects.filter(uuid=cast.alice.uuid).update(active=False)
        request = approved(ask_for(cast.alice, target=row_of(bella)))
        agent = Pickup(bella)
        agent.tell(request, "picked_up")
        assert request_access(cast.bob, bella, of_machine=cast.alice.uuid, request=str(request.pk))["allowed"]


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_the_list_of_a_terminal_cuts_nothing(
    cast: Cast, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Machine.objects.update(environment_name="production", service_name="\u6771\u4eac")
    request = ask_for(cast.alice, paths=[b"letters/to the bank.odt"])
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    PROGRAM.main(["restore", "list"])
    lines = capsys.readouterr().out.splitlines()
    text = "\n".join(lines)
    for name in (str(request.pk)[:8], "production-\u6771\u4eac-web-0", "etc: letters/to the bank.odt"):
        assert any(name in line for line in lines)
    assert "\u2026" not in text
    left_out = next((line for line in lines if line.startswith("(no room for: ")), "")
    for column, cell in (("by", ANN.name), ("onto", f"{request.target}:{request.directory}")):
        assert any(cell in line for line in lines) is not (column in left_out.split(";")[0].split(": ")[-1].split(", "))


def test_the_list_says_why_a_request_waits_or_failed(cast: Cast) -> None:
    approved(ask_for(cast.alice))
    request, agent = approved(ask_for(cast.alice)), Pickup(cast.alice)
    agent.tell(request, "picked_up")
    agent.tell(request, "failed", message="no such snapshot\nmore of it")
    [failed, why_failed, waiting, why_waiting] = turku_api("restore", "list", "--all")[1].splitlines()
    assert (failed.split("\t")[2], why_failed) == ("failed", "  why: no such snapshot")
    assert (waiting.split("\t")[2], why_waiting) == (
        "waits for the machine",
        "  why: the machine has not checked in since",
    )


def test_a_request_that_waits_for_approval_names_the_command(cast: Cast) -> None:
    text = turku_api("restore", "request", cast.alice.uuid, "etc", "--directory=/srv/new", "--reason=T42")[1]
    request = RestoreRequest.objects.get()
    assert text.endswith(f"Approve it: turku-api restore approve {str(request.pk)[:8]}\n")
    RestorePolicy.objects.create(approvals=0)
    text = turku_api("restore", "request", cast.alice.uuid, "etc", "--directory=/srv/new", "--reason=T42")[1]
    assert "Approve it" not in text
