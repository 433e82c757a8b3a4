"""May a storage show or send history: to whom, while what, and what is noted of it."""

from datetime import timedelta
from typing import Any

import pytest
from tests.support.api_cast import Cast
from tests.support.restore_requests import ANN, Pickup, Refused, ask_for, request_access, row_of
from tests.support.v1_client import V1Machine, V1Storage

from turku.api.audit import log
from turku.api.audit.models import AuditEntry
from turku.api.backups.models import Source
from turku.api.fleet.models import Auth, Machine
from turku.api.restores import policies, transitions
from turku.api.restores.models import RestorePolicy, RestoreRequest
from turku.core.clock import SYSTEM_CLOCK


@pytest.fixture
def bella(cast: Cast) -> V1Machine:
    """Another machine of the same Auth."""
    machine = cast.machine(unit_name="web-1")
    machine.update_config({"etc": {"path": "/etc"}})
    return machine


def running(cast: Cast, target: V1Machine, **wish: Any) -> RestoreRequest:
    """A request that a run of the target holds."""
    request = ask_for(cast.alice, target=row_of(target), **wish)
    transitions.approve(request, actor=ANN, now=SYSTEM_CLOCK.now())
    Pickup(target).tell(request, "picked_up")
    return request


def noted(action: str) -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(action=action))


def test_a_machine_has_its_own_history(cast: Cast) -> None:
    assert request_access(cast.bob, cast.alice, action="browse") == {"allowed": True}
    assert request_access(cast.bob, cast.alice, action="restore") == {"allowed": True}


@pytest.mark.parametrize("scope", ["all", "auth", "machine"])
def test_unless_a_policy_says_otherwise(cast: Cast, scope: str) -> None:
    alice = row_of(cast.alice)
    RestorePolicy.objects.create(
        auth=alice.auth if scope == "auth" else None,
        machine=alice if scope == "machine" else None,
        history_visible=False,
    )
    for action in ("browse", "restore"):
        answer = request_access(cast.bob, cast.alice, action=action)
        assert not answer["allowed"]
        assert "policy" in answer["reason"]


def test_the_most_specific_policy_counts(cast: Cast) -> None:
    alice = row_of(cast.alice)
    RestorePolicy.objects.create(history_visible=False, approvals=2)
    RestorePolicy.objects.create(auth=alice.auth, other_machines=False)
    RestorePolicy.objects.create(machine=alice, history_visible=True)
    assert policies.rules_of(alice) == policies.HistoryRules(history_visible=True, approvals=2, other_machines=False)
    assert request_access(cast.bob, cast.alice)["allowed"]


def test_a_request_overrides_a_policy_that_hides_history(cast: Cast) -> None:
    RestorePolicy.objects.create(history_visible=False)
    request = running(cast, cast.alice)
    assert not request_access(cast.bob, cast.alice)["allowed"]
    assert request_access(cast.bob, cast.alice, request=str(request.pk))["allowed"]


@pytest.mark.parametrize("switched_off", ["machine", "source"])
def test_a_machine_or_source_that_is_switched_off_has_none(cast: Cast, switched_off: str) -> None:
    (Machine if switched_off == "machine" else Source).objects.update(active=False)
    assert not request_access(cast.bob, cast.alice)["allowed"]


def test_another_machine_has_it_by_a_request_of_that_source_that_it_runs(cast: Cast, bella: V1Machine) -> None:
    request = running(cast, bella, paths=[b"ssh", b"\xff"], snapshot="etc_20261124-084122_8491")
    said = {"of_machine": cast.alice.uuid, "request": str(request.pk)}
    for action in ("browse", "restore"):
        assert request_access(cast.bob, bella, action=action, **said) == {
            "allowed": True,
            "paths": ["ssh", {"b64": "/w=="}],
            "snapshot": {"name": "etc_20261124-084122_8491"},
        }
    assert not request_access(cast.bob, bella, "home", **said)["allowed"], "another source"
    assert not request_access(cast.bob, bella, of_machine=cast.alice.uuid)["allowed"], "no request named"
    third = cast.machine(unit_name="web-2")
    third.update_config({})
    assert not request_access(cast.bob, third, **said)["allowed"], "another machine's request"


def test_the_request_ends_with_its_outcome_and_its_lease(cast: Cast, bella: V1Machine) -> None:
    request = running(cast, bella)
    said = {"of_machine": cast.alice.uuid, "request": str(request.pk)}
    assert request_access(cast.bob, bella, **said)["allowed"]
    RestoreRequest.objects.update(date_offered=SYSTEM_CLOCK.now() - timedelta(seconds=1))
    assert not request_access(cast.bob, bella, **said)["allowed"]
    agent = Pickup(bella)
    agent.tell(request, "picked_up")
    assert request_access(cast.bob, bella, **said)["allowed"]
    agent.tell(request, "postponed")
    assert not request_access(cast.bob, bella, **said)["allowed"], "it waits again"
    RestoreRequest.objects.update(date_offered=SYSTEM_CLOCK.now())
    agent.tell(request, "picked_up")
    transitions.cancel(request, actor=ANN, now=SYSTEM_CLOCK.now())
    assert not request_access(cast.bob, bella, **said)["allowed"]


def test_a_machine_of_another_storage_does_not_exist_for_it(cast: Cast, bella: V1Machine) -> None:
    mallory = V1Storage(cast.bob.post, auth=cast.bob.auth, name="mallory")
    mallory.update_config()
    request = running(cast, bella)
    unknown = request_access(mallory, cast.alice, "nothing")
    assert not unknown["allowed"]
    said = {"of_machine": cast.alice.uuid, "request": str(request.pk)}
    assert request_access(mallory, cast.alice) == request_access(mallory, bella, **said) == unknown
    with pytest.raises(Refused) as refused:
        request_access(V1Storage(cast.bob.post, name="primary", secret="x" * 30), cast.alice)
    assert refused.value.status == 403


class TestAuditLog:
    def test_has_every_restore_and_a_browse_once_in_a_while(self, cast: Cast) -> None:
        for _ in range(3):
            request_access(cast.bob, cast.alice, action="restore")
            request_access(cast.bob, cast.alice, action="browse")
        request_access(cast.bob, cast.alice, "home", action="browse")
        assert len(noted("restore.granted")) == 3
        assert [entry.subject for entry in noted("restore.browsed")] == ["home", "etc"]
        entry = noted("restore.granted")[0]
        assert (entry.actor_kind, entry.actor, entry.new["storage"]) == ("machine", cast.alice.uuid, "primary")

    def test_names_the_request_and_whose_files_they_are(self, cast: Cast, bella: V1Machine) -> None:
        request = running(cast, bella)
        request_access(cast.bob, bella, of_machine=cast.alice.uuid, request=str(request.pk))
        (entry,) = noted("restore.granted")
        assert (entry.actor, entry.new["of_machine"]) == (bella.uuid, cast.alice.uuid)
        assert entry.new["request"] == str(request.pk)

    def test_has_what_was_denied_once_in_a_while_as_the_storage_s_doing(self, cast: Cast, bella: V1Machine) -> None:
        for _ in range(3):
            request_access(cast.bob, bella, of_machine=cast.alice.uuid)
        (entry,) = noted("restore.denied")
        assert (entry.actor_kind, entry.actor, entry.new["machine"]) == ("storage", "primary", bella.uuid)

    def test_a_flood_of_restores_is_refused(self, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
        # What registered Alice counts too.
        monkeypatch.setattr(log, "FLOOD_LIMIT", AuditEntry.objects.filter(actor=cast.alice.uuid).count() + 3)
        for _ in range(3):
            request_access(cast.bob, cast.alice)
        with pytest.raises(Refused) as refused:
            request_access(cast.bob, cast.alice)
        assert refused.value.status == 429


def test_a_policy_is_for_one_scope(cast: Cast) -> None:
    assert str(RestorePolicy(auth=Auth.objects.all()[0])) == "machines of machines"
    assert str(RestorePolicy()) == "all machines"


class TestSnapshotOfARequest:
    """``resolved``: what a storage takes the choice of a request to mean, remembered once."""

    def test_is_settled_by_the_first_report(self, cast: Cast, bella: V1Machine) -> None:
        request = running(cast, bella)
        said = {"of_machine": cast.alice.uuid, "request": str(request.pk)}
        assert request_access(cast.bob, bella, **said) == {"allowed": True, "snapshot": {}}
        first = request_access(cast.bob, bella, **said, resolved="etc_20261124-084122_8491")
        assert first["resolved"] == "etc_20261124-084122_8491"
        assert request_access(cast.bob, bella, **said, resolved="etc_20261125-084122_8491") == first
        assert request_access(cast.bob, bella, **said) == first
        (entry,) = noted("restore.resolved")
        assert (entry.actor_kind, entry.actor) == ("storage", "primary")
        assert entry.new == {"resolved_snapshot": "etc_20261124-084122_8491"}

    def test_is_the_snapshot_of_a_later_run(self, cast: Cast, bella: V1Machine) -> None:
        request = running(cast, bella)
        said = {"of_machine": cast.alice.uuid, "request": str(request.pk)}
        request_access(cast.bob, bella, **said, resolved="etc_20261124-084122_8491")
        RestoreRequest.objects.update(date_offered=SYSTEM_CLOCK.now() - timedelta(seconds=1))
        [order] = Pickup(bella).offered()
        assert order["snapshot"] == {"name": "etc_20261124-084122_8491"}

    def test_is_settled_by_nobody_else(self, cast: Cast, bella: V1Machine) -> None:
        request = running(cast, bella)
        mallory = V1Storage(cast.bob.post, auth=cast.bob.auth, name="mallory")
        mallory.update_config()
        said = {"of_machine": cast.alice.uuid, "request": str(request.pk), "resolved": "etc_20261124-084122_8491"}
        assert not request_access(mallory, bella, **said)["allowed"]
        assert not request_access(cast.bob, cast.alice, **said)["allowed"]
        for name in ("../x", ".deleting", "a\nb", "x" * 300):
            with pytest.raises(Refused) as refused:
                request_access(cast.bob, bella, **{**said, "resolved": name})
            assert refused.value.status == 400
        assert request_access(cast.bob, bella, of_machine=cast.alice.uuid, request=str(request.pk)) == {
            "allowed": True,
            "snapshot": {},
        }


def test_a_machine_does_not_see_the_sources_of_another(cast: Cast, bella: V1Machine) -> None:
    answers = [request_access(cast.bob, bella, source, of_machine=cast.alice.uuid) for source in ("etc", "nothing")]
    assert answers[0] == answers[1]
    assert not answers[0]["allowed"]
