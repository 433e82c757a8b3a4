"""M8: a join token that ended, was used up or was revoked lets nobody in, and a stranger learns nothing of it."""

import pytest
from tests.support.http_cast import SOURCES, HttpCast
from tests.support.v1_client import Refused, V1Machine

from turku.protocol import join_token
from turku.protocol.join_token import JoinKind

URL = "https://turku.example.com"


def secret_of(cast: HttpCast, name: str) -> str:
    word = cast.coordinator.manage("join-token", "create", "machine", "--name", name, "--url", URL, "--raw")
    return join_token.decode(word, kind=JoinKind.MACHINE).secret.reveal()


def refusal(machine: V1Machine) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        machine.update_config(SOURCES)
    return caught.value.status, caught.value.sentence


@pytest.mark.parametrize(
    "act",
    [
        "uses_count = 100",
        "uses_limit = 0",
        "date_ends = datetime.now(timezone.utc) - timedelta(seconds=1)",
        "active = False",
    ],
)
def test_m8_a_token_that_is_over_is_as_good_as_a_guess(cast: HttpCast, act: str) -> None:
    name = f"token {cast.alice.uuid}"
    secret = secret_of(cast, name)
    cast.operator(f"token = Auth.objects.get(name={name!r}); token.{act}; token.save()")
    found = [refusal(cast.machine(auth=auth)) for auth in (secret, "x" * 30, {"name": name, "secret": secret})]
    assert len(set(found)) == 1
    assert found[0][0] == 403
    assert cast.rows(
        "SELECT count(*) AS n FROM fleet_machine m JOIN fleet_auth a ON a.id = m.auth_id WHERE a.name = ?", name
    ) == [{"n": 0}]


def test_m8_a_token_of_machines_registers_no_storage_and_takes_nobody_over(cast: HttpCast) -> None:
    secret = secret_of(cast, f"token {cast.alice.uuid}")
    before = cast.machine_row()
    assert refusal(cast.machine(auth=secret, uuid=cast.alice.uuid))[0] == 403
    with pytest.raises(Refused) as caught:
        cast.storage(auth=secret).update_config()
    assert caught.value.status == 403
    assert cast.machine_row() == before
