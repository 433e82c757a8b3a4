"""S1: a compromised storage sees and does nothing for machines of another storage."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.http_cast import HttpCast, status_of
from tests.support.v1_client import Refused, V1Storage, ask


@pytest.fixture
def mallory(cast: HttpCast) -> V1Storage:
    """Another registered storage."""
    storage = cast.storage()
    storage.update_config()
    return storage


def prove(mallory: V1Storage, machine: str, *sources: str) -> Any:
    """Say that a machine's files are damaged, and that a restore of them failed."""
    damage = {"path": "passwd", "kind": "content", "state": "lost"}
    drill = {"success": False, "time_begin": 1.8e9, "time_end": 1.8e9}
    reported = {source: {"damages": [damage], "drill": drill} for source in sources}
    credentials = {"name": mallory.name, "secret": mallory.secret}
    message = {"storage": credentials, "machine": {"uuid": machine, "sources": reported}}
    return ask(mallory.post, "../v2/storage_integrity_report", message)


ACTS: dict[str, Callable[[V1Storage, str], Any]] = {
    "checkin": lambda mallory, machine: mallory.due(machine),
    "good report": lambda mallory, machine: mallory.succeeded(machine, "etc"),
    "bad report": lambda mallory, machine: mallory.failed(machine, "etc"),
    "report of an unknown source": lambda mallory, machine: mallory.failed(machine, "nothing"),
    "empty report": lambda mallory, machine: mallory.report(machine, {}),
    "damage and a bad drill": lambda mallory, machine: prove(mallory, machine, "etc"),
    "integrity of nothing": prove,
}


@pytest.mark.parametrize("act", ACTS)
def test_s1_another_storages_machine_does_not_exist(cast: HttpCast, mallory: V1Storage, act: str) -> None:
    sources = cast.source_rows()
    with pytest.raises(Refused) as known:
        ACTS[act](mallory, cast.alice.uuid)
    with pytest.raises(Refused) as unknown:
        ACTS[act](mallory, str(uuid.uuid4()))
    assert known.value.status == 404
    assert known.value.sentence == unknown.value.sentence, "nor does the answer tell that it does"
    assert cast.source_rows() == sources
    for table in ("backups_backuprun", "integrity_damage", "integrity_drill", "integrity_integritystate"):
        assert not cast.rows(f"SELECT * FROM {table} WHERE source_id = ?", sources[0]["id"])


def test_s1_it_hears_of_its_own_machines_only(cast: HttpCast, mallory: V1Storage) -> None:
    assert cast.alice.uuid not in mallory.update_config()
    assert set(cast.bob.update_config()) == {cast.alice.uuid}


def test_s1_it_cannot_take_another_storages_place(cast: HttpCast, mallory: V1Storage) -> None:
    before = cast.rows("SELECT * FROM fleet_storage WHERE name = ?", cast.bob.name)
    posing = cast.storage(name=cast.bob.name, secret=mallory.secret)
    assert status_of(posing.update_config) == 403
    message = {"storage": {"name": cast.bob.name, "secret": mallory.secret}, "new_secret": "m" * 30}
    assert status_of(lambda: ask(cast.post, "storage_rotate", message)) == 403
    assert cast.rows("SELECT * FROM fleet_storage WHERE name = ?", cast.bob.name) == before


def test_s1_a_machine_that_moved_away_is_gone_for_its_former_storage(cast: HttpCast, mallory: V1Storage) -> None:
    cast.operator(f"alice.storage = Storage.objects.get(name='{mallory.name}'); alice.save()")
    assert status_of(lambda: cast.bob.due(cast.alice.uuid)) == 404
    assert set(mallory.due(cast.alice.uuid)) == {"etc", "home"}
