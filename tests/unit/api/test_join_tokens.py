"""Join tokens: their limits, what counts as a use, and the commands about them."""

import json
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from tests.support.api_cast import Cast, post, turku_api
from tests.support.v1_client import Refused, V1Machine, V1Storage

from turku.api.audit.models import AuditEntry
from turku.api.fleet.identity import join_tokens
from turku.api.fleet.identity.join_tokens import IssuedToken
from turku.api.fleet.models import Auth, Machine
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import UsageError
from turku.protocol import join_token
from turku.protocol.join_token import JoinKind

ETC = {"etc": {"path": "/etc"}}
URL = "https://turku.example.com"


def issue(kind: JoinKind = JoinKind.MACHINE, *, uses: int | None = 1, **settings: Any) -> IssuedToken:
    now = SYSTEM_CLOCK.now()
    settings = {"ends": now + timedelta(hours=1), "url": URL, **settings}
    return join_tokens.create(kind, uses=uses, now=now, **settings)


def machine_of(token: IssuedToken) -> V1Machine:
    return V1Machine(post, auth=token.token.secret.reveal())


def refusal(machine: V1Machine | V1Storage) -> Refused:
    call = partial(machine.update_config, ETC) if isinstance(machine, V1Machine) else machine.update_config
    with pytest.raises(Refused) as caught:
        call()
    return caught.value


def stranger() -> Refused:
    return refusal(V1Machine(post, auth="not a secret that anybody gave out"))


def test_a_machine_registers_with_what_the_word_holds(cast: Cast) -> None:
    issued = issue()
    token = join_token.decode(issued.word.reveal(), kind=JoinKind.MACHINE)
    assert token.url == f"{URL}/v1"
    carol = V1Machine(post, auth=token.secret.reveal())
    carol.update_config(ETC)
    assert set(carol.due()) == {"etc"}
    assert Machine.objects.get(uuid=carol.uuid).auth == issued.auth


def test_a_machine_that_registers_again_uses_none_up(cast: Cast) -> None:
    token = issue(uses=2)
    carol = machine_of(token)
    for _ in range(3):
        carol.update_config(ETC)
    machine_of(token).update_config(ETC)
    assert Auth.objects.get(pk=token.auth.pk).uses_count == 2
    carol.update_config(ETC)
    assert refusal(machine_of(token)).status == 403


def test_a_refused_registration_uses_none_up(cast: Cast) -> None:
    token = issue()
    thief = V1Machine(post, auth=token.token.secret.reveal(), uuid=cast.alice.uuid)
    assert refusal(thief).status == 403
    bad = V1Machine(post, auth=token.token.secret.reveal(), ssh_public_key="nonsense")
    assert refusal(bad).status == 400
    machine_of(token).update_config(ETC)


def test_a_storage_uses_its_token_up(cast: Cast) -> None:
    token = issue(JoinKind.STORAGE)
    carol = V1Storage(post, auth=token.token.secret.reveal(), name="carol")
    carol.update_config()
    carol.update_config()
    dave = V1Storage(post, auth=token.token.secret.reveal(), name="dave")
    assert refusal(dave).status == 403


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"date_ends": SYSTEM_CLOCK.now() - timedelta(seconds=1)}, "ended"),
        ({"uses_count": 1}, "used up"),
        ({"active": False}, "revoked"),
    ],
)
def test_a_stranger_is_not_told_why_and_the_operator_is(
    cast: Cast, change: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    token = issue()
    Auth.objects.filter(pk=token.auth.pk).update(**change)
    carol = machine_of(token)
    for _ in range(2):
        answer = refusal(carol)
        assert (answer.status, answer.sentence) == (stranger().status, stranger().sentence)
    assert f"a registration with {token.auth.name} is refused: it is {reason}" in caplog.text
    entry = AuditEntry.objects.get(action="auth.refused")
    assert (entry.subject, entry.new) == (token.auth.name, {"reason": reason})
    assert not Machine.objects.filter(auth=token.auth).exists()


def test_a_use_is_not_counted_beyond_the_last_one(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    token = issue()
    found = token.auth
    monkeypatch.setattr("turku.api.fleet.identity.auths.find", lambda *_arguments, **_options: found)
    machine_of(token).update_config(ETC)
    # The second one was let in before the first one was counted.
    assert refusal(machine_of(token)).status == 403
    assert Auth.objects.get(pk=found.pk).uses_count == 1
    assert Machine.objects.filter(auth=found).count() == 1


def test_create_prints_a_word_once_and_list_never(cast: Cast) -> None:
    code, output = turku_api("join-token", "create", "machine", "--url", URL, "--note", "office", "--uses", "3")
    assert code == 0
    word = output.split("turku-agent setup ")[1].strip()
    token = join_token.decode(word, kind=JoinKind.MACHINE)
    V1Machine(post, auth=token.secret.reveal(), unit_name="carol").update_config(ETC)
    listed = turku_api("join-token", "list")[1] + turku_api("join-token", "list", "--json")[1]
    assert token.secret.reveal() not in listed
    assert word not in listed
    row = next(row for row in json.loads(turku_api("join-token", "list", "--json")[1]) if row["note"] == "office")
    assert (row["state"], row["uses"], row["used"], row["kind"]) == ("open", 3, 1, "machine")
    assert [name.split("-")[-1] for name in row["registered"]] == ["carol"]


@pytest.mark.parametrize(
    ("arguments", "uses", "hours"),
    [
        (["machine"], 100, 24),
        (["storage"], 1, 24),
        (["storage", "--uses", "2", "--days", "2"], 2, 48),
        (["machine", "--unlimited", "--hours", "0.5"], None, 0.5),
        (["machine", "--no-end"], 100, None),
    ],
)
def test_limits_have_defaults_and_options(
    cast: Cast, arguments: list[str], uses: int | None, hours: float | None
) -> None:
    turku_api("join-token", "create", *arguments, "--url", URL, "--name", "new")
    auth = Auth.objects.get(name="new")
    assert auth.uses_limit == uses
    assert (auth.date_ends and auth.date_ends - auth.date_added) == (hours and timedelta(hours=hours))


def test_revoke_lets_nobody_in_any_more_and_keeps_who_came(cast: Cast) -> None:
    token = issue(uses=None, name="office")
    carol = machine_of(token)
    carol.update_config(ETC)
    assert turku_api("join-token", "revoke", "office")[0] == 0
    assert refusal(machine_of(token)).status == 403
    assert set(carol.due()) == {"etc"}
    assert AuditEntry.objects.filter(action="auth.changed", subject="office").count() == 1
    with pytest.raises(UsageError, match="no join token 'lab'"):
        turku_api("join-token", "revoke", "lab")


def test_revoke_asks_for_the_kind_where_two_have_the_name(cast: Cast) -> None:
    for kind in JoinKind:
        issue(kind, name="office")
    with pytest.raises(UsageError, match="have the name 'office'"):
        turku_api("join-token", "revoke", "office")
    turku_api("join-token", "revoke", "office", "--kind", "storage")
    assert dict(Auth.objects.filter(name="office").values_list("kind", "active")) == {
        "machine_reg": True,
        "storage_reg": False,
    }


def test_the_address_is_that_of_the_settings(cast: Cast, settings: Any) -> None:
    environment = settings.TURKU_ENVIRONMENT.__dict__

    def address(**changes: Any) -> str:
        settings.TURKU_ENVIRONMENT = type(settings.TURKU_ENVIRONMENT)(**{**environment, **changes})
        return join_tokens.coordinator_url()

    hosts = (".example.com", "turku.example.com", "localhost")
    assert address(url="https://backup.example.com/turku", allowed_hosts=hosts) == (
        "https://backup.example.com/turku/v1"
    )
    assert address(url="", allowed_hosts=hosts) == "https://turku.example.com/v1"
    with pytest.raises(UsageError, match="TURKU_URL is not set"):
        address(url="", allowed_hosts=("localhost", "127.0.0.1"))


@pytest.mark.parametrize("url", ["http://turku.example.com", "turku.example.com", "https://a@turku.example.com/"])
def test_a_token_never_holds_an_address_that_its_owner_refuses(cast: Cast, url: str) -> None:
    with pytest.raises(UsageError):
        issue(url=url)
    assert Auth.objects.count() == 2
