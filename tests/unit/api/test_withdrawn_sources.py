"""A source that was backed up and is declared no more is a problem until an operator confirms it."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from tests.support.api_cast import Cast, turku_api

from turku.api.audit.models import AuditEntry
from turku.api.backups.models import Source
from turku.api.fleet.models import Machine
from turku.api.status import fleet_health, fleet_marks, source_marks
from turku.api.status.marks import Mark
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import UsageError

ETC = {"etc": {"path": "/etc"}}
BOTH = {**ETC, "home": {"path": "/home"}}


def mark(name: str = "home") -> str:
    [source] = source_marks.sources(now=SYSTEM_CLOCK.now()).filter(name=name)
    return str(source.mark)


def machine_mark() -> str:
    [machine] = fleet_marks.machines(now=SYSTEM_CLOCK.now())
    return str(machine.mark)


def run(*arguments: str) -> str:
    return turku_api("machine", "confirm-withdrawal", *arguments)[1]


@pytest.fixture
def withdrawn(cast: Cast) -> Cast:
    """Alice, who has forgotten a source that was backed up."""
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    cast.alice.update_config(ETC)
    return cast


def test_it_is_a_problem_of_source_and_machine(withdrawn: Cast) -> None:
    assert mark() == machine_mark() == Mark.WITHDRAWN
    assert Mark.WITHDRAWN.is_problem
    state = fleet_health.current_health(now=SYSTEM_CLOCK.now(), verbose=True)
    assert state.summary.endswith("1 withdrawn of 1 machine; 1 withdrawn of 2 sources")
    assert "source web-0 / home: withdrawn: not declared by its machine since" in state.groups[2].sentences[0]


def test_the_machine_gets_them_at_each_update_until_somebody_confirms(withdrawn: Cast) -> None:
    for _ in range(2):
        assert withdrawn.alice.update_config(ETC) == {"withdrawn": ["home"]}
    run("web-0")
    assert withdrawn.alice.update_config(ETC) == {}


def test_one_that_was_never_backed_up_is_none(cast: Cast) -> None:
    assert cast.alice.update_config(ETC) == {}
    assert mark() == Mark.OFF


def test_one_that_comes_back_is_as_before(withdrawn: Cast) -> None:
    assert withdrawn.alice.update_config(BOTH) == {}
    assert mark() == Mark.OK
    assert Source.objects.get(name="home").date_withdrawn is None


def test_a_machine_that_loses_every_file_gets_all_of_them(cast: Cast) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    assert cast.alice.update_config({}) == {"withdrawn": ["etc", "home"]}
    assert not fleet_health.current_health(now=SYSTEM_CLOCK.now()).is_healthy


def test_a_late_report_does_not_hide_it(withdrawn: Cast) -> None:
    withdrawn.bob.succeeded(withdrawn.alice.uuid, "home")
    assert mark() == Mark.WITHDRAWN


@pytest.mark.parametrize(("model", "change"), [(Source, {"active": False}), (Machine, {"active": False})])
def test_a_source_that_an_operator_switches_off_does_not_count(
    withdrawn: Cast, model: Any, change: dict[str, bool]
) -> None:
    model.objects.update(**change)
    assert mark() == Mark.OFF


def test_the_command_confirms_all_or_the_named_ones(cast: Cast) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    cast.alice.update_config({})
    with pytest.raises(UsageError, match="has no withdrawn source srv"):
        run("web-0", "etc", "srv")
    assert run("web-0", "home") == "1 withdrawn source of machine web-0 confirmed.\n"
    assert (mark("etc"), mark("home")) == (Mark.WITHDRAWN, Mark.OFF)
    assert run("web-0").startswith("1 withdrawn source ")
    assert mark("etc") == Mark.OFF
    assert cast.alice.update_config({}) == {}
    entries = AuditEntry.objects.filter(action="source.withdrawal_confirmed")
    assert {(entry.subject, entry.actor_kind, entry.weakens) for entry in entries} == {
        ("etc", "command", True),
        ("home", "command", True),
    }


def test_the_action_of_the_site_confirms_too(withdrawn: Cast) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root", password="correct horse battery"))
    address = reverse("admin:backups_source_changelist")
    page = client.get(address).content.decode()
    assert "not declared by its machine" in page
    source = Source.objects.get(name="home")
    own = client.get(reverse("admin:backups_source_change", args=[source.pk])).content.decode()
    assert "confirm-withdrawal" in own
    keys = [str(key) for key in Source.objects.values_list("pk", flat=True)]
    answer = client.post(address, {"action": "confirm_withdrawal", "_selected_action": keys}, follow=True)
    assert "1 confirmed." in answer.content.decode()
    assert mark() == Mark.OFF
    assert AuditEntry.objects.get(action="source.withdrawal_confirmed").actor == "root"


def test_withdrawing_again_after_a_return_is_a_problem_again(withdrawn: Cast) -> None:
    run("web-0")
    withdrawn.alice.update_config(BOTH)
    withdrawn.alice.update_config(ETC)
    assert mark() == Mark.WITHDRAWN
