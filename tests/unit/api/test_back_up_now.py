"""`turku-api back-up-now`: the operator's wish, as a command."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from tests.support import api_cast

from turku.api.backups.models import Source
from turku.api.fleet.models import Machine, Storage
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import UsageError

pytestmark = pytest.mark.django_db


def _run(*arguments: str) -> str:
    return api_cast.turku_api("back-up-now", *arguments)[1]


def test_all_sources_of_a_machine_are_due_again() -> None:
    cast = api_cast.introduce()
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    assert cast.alice.due() == {}
    assert _run(cast.alice.uuid).startswith("2 of 2 sources")
    assert set(cast.alice.due()) == {"etc", "home"}


def test_named_sources_of_a_machine_named_by_its_unit_are_due_again() -> None:
    cast = api_cast.introduce()
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    assert _run("web-0", "home") == "1 of 1 source of machine web-0 is due now\n"
    assert set(cast.alice.due()) == {"home"}


def test_a_missing_or_ambiguous_name_is_refused() -> None:
    cast = api_cast.introduce()
    with pytest.raises(UsageError, match="has no source srv"):
        _run("web-0", "etc", "srv")
    with pytest.raises(UsageError, match="there is no machine 'web-9'"):
        _run("web-9")
    cast.machine().update_config({"etc": {"path": "/etc"}})
    with pytest.raises(UsageError, match="more than one machine is called 'web-0'"):
        _run("web-0")


def test_the_answer_names_machines_that_will_not_come() -> None:
    cast = api_cast.introduce()
    assert "silent" not in _run("web-0")
    Machine.objects.update(date_checked_in=SYSTEM_CLOCK.now() - timedelta(hours=2))
    lines = _run("web-0").splitlines()
    assert lines[0] == "2 of 2 sources of machine web-0 are due now"
    assert lines[1] == "Silent: web-0. Nothing is backed up there until the machine or its storage is heard from again."
    cast.bob.failed(cast.alice.uuid, "etc")
    Storage.objects.update(date_checked_in=SYSTEM_CLOCK.now() - timedelta(hours=2))
    assert "Silent: web-0." in _run("web-0")


def test_the_action_of_the_site_names_machines_that_will_not_come() -> None:
    cast = api_cast.introduce()
    cast.machine(unit_name="db-0").update_config({"etc": {"path": "/etc"}})
    Machine.objects.filter(unit_name="db-0").update(date_checked_in=SYSTEM_CLOCK.now() - timedelta(hours=2))
    client = Client()
    client.force_login(User.objects.create_superuser("root", password="correct horse battery"))
    for model in (Machine, Source):
        address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        keys = [str(key) for key in model.objects.values_list("pk", flat=True)]
        page = client.post(address, {"action": "back_up_now", "_selected_action": keys}, follow=True).content.decode()
        assert "3 sources are due now" in page
        assert "Silent: db-0. Nothing" in page
