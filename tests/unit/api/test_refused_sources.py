"""One bad source keeps no other out, where the machine can be told which one was refused."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from tests.support.api_cast import Cast, turku_api
from tests.support.v1_client import Refused, ask

from turku.api.audit.models import AuditEntry
from turku.api.backups.models import SOURCES_LIMIT, Source
from turku.api.fleet.models import Machine
from turku.policy.source_options import OPTIONS

GOOD = {"path": "/srv"}
BAD: dict[str, dict[str, Any]] = {
    "relative": {"path": "srv"},
    "dayly": {"path": "/srv", "frequency": "dayly"},
    "../up": {"path": "/srv"},
    "ETC": {"path": "/srv"},
    "": {"path": "/srv"},
    "no-set": {"path": "/srv", "filter": ["merge nowhere"]},
    "none": {},
}


def declare(cast: Cast, sources: dict[str, Any], **machine: Any) -> dict[str, str]:
    alice = cast.alice
    message = {"uuid": alice.uuid, "secret": alice.secret, "sources": sources, **machine}
    refused: dict[str, str] = ask(alice.post, "update_config", {"machine": message, "takes_part": True}).get(
        "refused", {}
    )
    return refused


def in_force() -> dict[str, str]:
    return dict(Source.objects.filter(published=True).values_list("name", "path"))


def test_the_good_ones_are_taken_and_each_bad_one_has_its_reason(cast: Cast) -> None:
    refused = declare(cast, {"etc": {"path": "/etc"}, **BAD, "srv": GOOD})
    assert in_force() == {"etc": "/etc", "srv": "/srv"}
    assert set(refused) == set(BAD)
    assert refused["relative"].startswith("path: 'srv' is not an absolute path")
    assert "did you mean daily" in refused["dayly"]
    assert "only by case or spelling" in refused["ETC"]
    assert refused["none"] == "path: is required"
    assert "nowhere" in refused["no-set"]


def test_a_machine_that_cannot_be_told_is_refused_as_a_whole(cast: Cast) -> None:
    with pytest.raises(Refused) as caught:
        cast.alice.update_config({"etc": {"path": "/etc"}, "srv": {"path": "srv"}})
    assert caught.value.status == 400
    assert in_force() == {"etc": "/etc", "home": "/home"}


@pytest.mark.parametrize("unusable", [False, True])
def test_a_bad_update_leaves_the_former_declaration_in_force(cast: Cast, unusable: bool) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc")
    entries = AuditEntry.objects.count()
    if unusable:
        refused = declare(cast, {"home": {"path": "/home"}}, unusable_sources={"etc": "path: not absolute"})
        assert refused == {"etc": "path: not absolute"}
    else:
        assert set(declare(cast, {"etc": {"path": "etc"}, "home": {"path": "/home"}})) == {"etc"}
    assert in_force() == {"etc": "/etc", "home": "/home"}
    assert AuditEntry.objects.count() == entries
    assert declare(cast, {"etc": {"path": "/srv"}, "home": {"path": "/home"}}) == {}
    assert in_force() == {"etc": "/srv", "home": "/home"}


def test_a_new_source_beyond_the_limit_is_refused_alone(cast: Cast) -> None:
    many = {f"source-{number}": GOOD for number in range(SOURCES_LIMIT - 1)}
    assert set(declare(cast, many)) == {f"source-{SOURCES_LIMIT - 2}"}
    assert Source.objects.count() == SOURCES_LIMIT


def test_health_and_the_machines_page_name_them_until_they_are_corrected(cast: Cast) -> None:
    cast.bob.succeeded(cast.alice.uuid, "etc", "home")
    good = {"etc": {"path": "/etc"}, "home": {"path": "/home"}}
    declare(cast, {**good, "srv": {"path": "srv"}})
    code, said = turku_api("health", "--verbose")
    assert code == 2
    assert "machine web-0: source refused: srv: path: 'srv' is not an absolute path" in said
    client = Client()
    client.force_login(User.objects.create_superuser("root", password="correct horse battery"))
    page = client.get(f"/admin/fleet/machine/{Machine.objects.get().pk}/change/").content.decode()
    assert "is not an absolute path" in page
    assert "turku-agent check" in page
    declare(cast, good)
    assert turku_api("health")[0] == 0


def test_the_reasons_of_a_machine_are_bounded_and_printable(cast: Cast) -> None:
    sources = {f"\x1b[31m{number}" + "x" * 3000: "\x07" * 4000 for number in range(50)}
    refused = declare(cast, {}, unusable_sources=sources)
    stored = Machine.objects.get().refused_sources
    assert stored == refused
    assert len(stored) == 20
    for name, reason in stored.items():
        assert name.isprintable()
        assert reason.isprintable()
        assert len(name) <= 100
        assert len(reason) <= 300


def test_every_option_can_be_refused_for_one_source_alone(cast: Cast) -> None:
    for option in OPTIONS:
        refused = declare(cast, {"etc": {"path": "/etc"}, "odd": {"path": "/srv", option: {"no": "value"}}})
        assert set(refused) == {"odd"}
        assert option in refused["odd"]
        assert in_force() == {"etc": "/etc"}
