"""`turku-api back-up-now`: the operator's wish, as a command."""

from __future__ import annotations

import io

import pytest
from django.core.management import call_command
from tests.support import api_cast

from turku.errors import UsageError

pytestmark = pytest.mark.django_db


def _run(*arguments: str) -> str:
    output = io.StringIO()
    call_command("turku_back_up_now", *arguments, stdout=output)
    return output.getvalue()


def test_all_sources_of_a_machine_are_due_again() -> None:
    cast = api_cast.introduce()
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    assert cast.alice.due() == {}
    assert _run(cast.alice.uuid).startswith("2 of 2 sources")
    assert set(cast.alice.due()) == {"etc", "home"}


def test_named_sources_of_a_machine_named_by_its_unit_are_due_again() -> None:
    cast = api_cast.introduce()
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    _run("web-0", "home")
    assert set(cast.alice.due()) == {"home"}


def test_what_does_not_exist_or_is_not_clear_is_refused() -> None:
    cast = api_cast.introduce()
    with pytest.raises(UsageError, match="has no source srv"):
        _run("web-0", "etc", "srv")
    with pytest.raises(UsageError, match="there is no machine 'web-9'"):
        _run("web-9")
    cast.machine().update_config({"etc": {"path": "/etc"}})
    with pytest.raises(UsageError, match="more than one machine is called 'web-0'"):
        _run("web-0")
