"""M1: a machine's key is parsed as one key of an allowed type. Nothing else that it sends reaches authorized_keys.

The storage's defence against a coordinator that sends such keys all the same is in test_c5_hostile_keys.py.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.coordinator import Coordinator
from tests.support.hostile_keys import HOSTILE_KEYS
from tests.support.http_cast import SOURCES, HttpCast, status_of
from tests.support.storage_host import StorageHost
from tests.support.v1_client import Refused, ask, new_ssh_key

BAD_LABELS = {
    "a line break": "web\nssh-ed25519 AAAA",
    "a carriage return": "web\rssh-ed25519 AAAA",
    "NUL": "web\0",
    "a terminal's escape": "web\x1b[2J",
    "text that turns round": "web\u202e0",
    "too long": "w" * 300,
}


@pytest.fixture(scope="module")
def cast(coordinator: Coordinator) -> HttpCast:
    """One for all: what is refused leaves her as she was."""
    return HttpCast.introduce(coordinator)


@pytest.mark.parametrize("key", HOSTILE_KEYS.values(), ids=HOSTILE_KEYS)
def test_m1_a_text_that_is_not_one_key_is_refused_everywhere(cast: HttpCast, key: str) -> None:
    before = cast.machine_row()
    machine = {"uuid": cast.alice.uuid, "secret": cast.alice.secret}
    with pytest.raises(Refused) as refused:
        cast.alice.update_config(SOURCES, ssh_public_key=key)
    assert refused.value.status == 400
    assert "ssh_public_key" in refused.value.sentence
    rotation = {"machine": machine, "new_secret": "n" * 30, "new_ssh_public_key": key}
    assert status_of(lambda: ask(cast.post, "machine_rotate", rotation)) == 400
    newcomer = cast.machine(ssh_public_key=key)
    assert status_of(lambda: newcomer.update_config(SOURCES)) == 400
    assert status_of(newcomer.due) == 403
    assert cast.machine_row() == before


@pytest.mark.parametrize("key", HOSTILE_KEYS.values(), ids=HOSTILE_KEYS)
def test_m1_a_storages_host_key_is_one_key_as_well(cast: HttpCast, key: str) -> None:
    """It becomes a line of every machine's known_hosts."""
    assert status_of(lambda: cast.bob.update_config(ssh_ping_host_keys=[new_ssh_key(), key])) == 400


@pytest.mark.parametrize("field", ["environment_name", "service_name", "unit_name", "comment"])
@pytest.mark.parametrize("text", BAD_LABELS.values(), ids=BAD_LABELS)
def test_m1_names_with_line_breaks_are_refused(cast: HttpCast, field: str, text: str) -> None:
    before = cast.machine_row()
    assert status_of(lambda: cast.alice.update_config(SOURCES, **{field: text})) == 400
    assert cast.machine_row() == before


@pytest.fixture(scope="module")
def storage(coordinator: Coordinator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageHost]:
    directory: Path = tmp_path_factory.mktemp("storage")
    auth = coordinator.create_auth("storage_reg")
    with StorageHost(directory, api_url=coordinator.url, api_auth=auth, name="of-keys") as running:
        running.update_config()
        yield running


@pytest.mark.parametrize(
    "text", [HOSTILE_KEYS["two lines"], HOSTILE_KEYS["a forced command"]], ids=["lines", "options"]
)
def test_m1_nothing_of_a_hostile_key_reaches_authorized_keys(cast: HttpCast, storage: StorageHost, text: str) -> None:
    cast.operator(f"alice.storage = Storage.objects.get(name={storage.name!r}); alice.save()")
    comment = 'x" command="id" $(id) # ssh-rsa AAAA'
    cast.alice.update_config(SOURCES, ssh_public_key=f"{cast.alice.ssh_public_key} {comment}")
    assert status_of(lambda: cast.alice.update_config(SOURCES, ssh_public_key=text)) == 400
    storage.update_config()
    (line,) = [line for line in storage.lines if cast.alice.uuid in line]
    kind, encoded = cast.alice.ssh_public_key.split()[:2]
    assert line.endswith(f" {kind} {encoded} turku:{cast.alice.uuid}")
    assert line.startswith("restrict,")
    assert line.count("command=") == 1
