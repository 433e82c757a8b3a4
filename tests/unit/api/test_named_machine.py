"""Commands take the name that the site shows, a unique end of it, or how the UUID begins."""

import pytest
from tests.support.api_cast import Cast, turku_api

from turku.api.fleet.models import Machine
from turku.api.fleet.named_machine import named_machine
from turku.errors import UsageError

FIRST = "abcdef00-0000-4000-8000-000000000001"
SECOND = "abcdef11-0000-4000-8000-000000000002"
THIRD = "12345678-0000-4000-8000-000000000003"


@pytest.fixture(autouse=True)
def machines(cast: Cast) -> None:
    for uuid, environment, service, unit in (
        (FIRST, "production", "shop", "web/2"),
        (SECOND, "staging", "shop", "web/2"),
        (THIRD, "production", "mail", ""),
    ):
        machine = cast.machine(uuid=uuid, unit_name=unit)
        machine.update_config({"etc": {"path": "/etc"}}, environment_name=environment, service_name=service)


@pytest.mark.parametrize(
    ("text", "uuid"),
    [
        ("production-shop-web/2", FIRST),
        ("staging-shop-web/2", SECOND),
        ("ion-shop-web/2", FIRST),
        ("production-mail", THIRD),
        ("mail", THIRD),
        ("abcdef00", FIRST),
        ("ABCDEF11-0000", SECOND),
        (THIRD.upper(), THIRD),
    ],
)
def test_one_machine_is_meant(text: str, uuid: str) -> None:
    assert str(named_machine(text).uuid) == uuid
    commands = (
        ("back-up-now", text),
        ("machine", "mute", text, "--days", "1", "--reason", "x"),
        ("restore", "request", text, "etc", "--directory", "/srv/x", "--reason", "x", "--onto", text),
    )
    for command in commands:
        assert str(Machine.objects.get(uuid=uuid)) in turku_api(*command)[1]


@pytest.mark.parametrize("text", ["web/2", "shop-web/2", "2", "abcdef"])
def test_a_text_that_fits_two_is_refused_with_both(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        named_machine(text)
    for part in ("production-shop-web/2", "staging-shop-web/2", FIRST, SECOND):
        assert part in caught.value.message


@pytest.mark.parametrize("text", ["", "abc", "shop", "web%", "_", "\0", "Production-shop-web/2", "x" * 5000])
def test_a_text_that_fits_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="there is no machine"):
        named_machine(text)


def test_names_steer_no_terminal(cast: Cast) -> None:
    with pytest.raises(UsageError) as caught:
        named_machine("\x1b[2J")
    assert "\x1b" not in caught.value.message
