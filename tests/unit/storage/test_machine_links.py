"""The links by readable name: they follow the machines, and take nothing from one another."""

import os
from pathlib import Path

import pytest
from tests.support.backed_up_machine import storage_configuration

from turku.errors import NotInHistory, UsageError
from turku.protocol.messages import AssignedMachine
from turku.storage.config.model import StorageConfig
from turku.storage.disk import machine_links, volumes
from turku.storage.disk.source_lookup import find_sources

FIRST = "1bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"
SECOND = "2bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d"


@pytest.fixture
def storage(tmp_path: Path) -> StorageConfig:
    (tmp_path / "volume").mkdir()
    volume = {"data": {"path": str(tmp_path / "volume"), "accept_new_high_water_pct": 100}}
    configured = storage_configuration(tmp_path / "etc", ssh_ping_host="storage.example.com", volumes=volume)
    volumes.machine_directory(configured, FIRST)
    volumes.machine_directory(configured, SECOND)
    return configured


def links(storage: StorageConfig) -> dict[str, str]:
    """Name to target of the readable links."""
    return {
        entry.name: os.readlink(entry)
        for entry in storage.state.machines_dir.iterdir()
        if entry.is_symlink() and entry.name not in (FIRST, SECOND)
    }


def named(unit: str | None, **names: str) -> AssignedMachine:
    return AssignedMachine(ssh_public_key=None, unit_name=unit, **names)


def test_a_machine_is_reached_by_environment_service_and_unit(storage: StorageConfig) -> None:
    machine_links.update_links(storage, {FIRST: named("db/2", environment_name="prod", service_name="sql")})
    assert links(storage) == {"prod-sql-db_2": FIRST}
    assert (storage.state.machines_dir / "prod-sql-db_2").resolve() == storage.disk.volumes[0].path / FIRST


def test_a_machine_without_a_directory_gets_no_link(storage: StorageConfig) -> None:
    machine_links.update_links(storage, {"3bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d": named("new")})
    assert links(storage) == {}


def test_a_link_by_uuid_that_is_gone_comes_back(storage: StorageConfig) -> None:
    (storage.state.machines_dir / FIRST).unlink()
    machine_links.update_links(storage, {FIRST: named("web")})
    assert (storage.state.machines_dir / "web").resolve() == storage.disk.volumes[0].path / FIRST


def test_a_machine_that_was_renamed_loses_its_former_name(storage: StorageConfig) -> None:
    machine_links.update_links(storage, {FIRST: named("old")})
    machine_links.update_links(storage, {FIRST: named("new")})
    assert links(storage) == {"new": FIRST}


def test_a_name_that_two_machines_claim_stays_with_its_holder(storage: StorageConfig) -> None:
    machine_links.update_links(storage, {SECOND: named("web")})
    machine_links.update_links(storage, {FIRST: named("web"), SECOND: named("web")})
    assert links(storage) == {"web": SECOND}
    machine_links.update_name_link(storage.state, FIRST, named("web"))
    assert links(storage) == {"web": SECOND}


def test_names_that_are_exchanged_are_exchanged(storage: StorageConfig) -> None:
    machine_links.update_links(storage, {FIRST: named("a"), SECOND: named("b")})
    machine_links.update_links(storage, {FIRST: named("b"), SECOND: named("a")})
    assert links(storage) == {"a": SECOND, "b": FIRST}


def test_a_machine_that_is_assigned_no_more_keeps_its_name_until_another_comes(storage: StorageConfig) -> None:
    machine_links.update_links(storage, {FIRST: named("web")})
    machine_links.update_links(storage, {})
    assert links(storage) == {"web": FIRST}
    machine_links.update_links(storage, {SECOND: named("web")})
    assert links(storage) == {"web": SECOND}


def test_links_that_lead_nowhere_go(storage: StorageConfig) -> None:
    (storage.state.machines_dir / "gone").symlink_to("3bef0a75-5a9b-43f7-a66a-7e8c6d7ad91d")
    machine_links.update_links(storage, {})
    assert links(storage) == {}


def test_absolute_links_of_the_existing_system_are_understood(storage: StorageConfig) -> None:
    (storage.state.machines_dir / "old").symlink_to(storage.state.machines_dir / FIRST)
    machine_links.update_links(storage, {FIRST: named("new")})
    assert links(storage) == {"new": FIRST}


@pytest.mark.parametrize("unit", [FIRST, SECOND, SECOND.upper(), "..", ".hidden", "a\nb", "", None])
def test_a_name_that_would_be_unsafe_or_another_machines_uuid_makes_no_link(
    storage: StorageConfig, unit: str | None
) -> None:
    before = {entry.name: os.readlink(entry) for entry in storage.state.machines_dir.iterdir()}
    machine_links.update_links(storage, {FIRST: named(unit)})
    machine_links.update_name_link(storage.state, FIRST, named(unit))
    assert {entry.name: os.readlink(entry) for entry in storage.state.machines_dir.iterdir()} == before


@pytest.mark.parametrize("kind", ["directory", "file", "link elsewhere"])
def test_an_entry_that_is_no_link_of_ours_is_left_alone(storage: StorageConfig, kind: str, tmp_path: Path) -> None:
    path = storage.state.machines_dir / "web"
    if kind == "directory":
        path.mkdir()
    elif kind == "file":
        path.write_text("the operator's")
    else:
        path.symlink_to(tmp_path)
    before = path.lstat().st_ino
    machine_links.update_links(storage, {FIRST: named("web")})
    assert path.lstat().st_ino == before


def kept(storage: StorageConfig, machine: str) -> list[str]:
    """The machines whose sources are chosen."""
    return [place.machine_dir.name for place in find_sources(storage, machine=machine)]


@pytest.fixture
def with_history(storage: StorageConfig) -> StorageConfig:
    for uuid in (FIRST, SECOND):
        (storage.disk.volumes[0].path / uuid / "etc.snapshots").mkdir()
    return storage


@pytest.mark.parametrize("text", ["production-shop-web/2", "production-shop-web_2", "on-shop-web/2", "1bef", FIRST])
def test_a_machine_is_named_as_the_site_shows_it(with_history: StorageConfig, text: str) -> None:
    names = {"environment_name": "production", "service_name": "shop"}
    machine_links.update_links(
        with_history, {FIRST: named("web/2", **names), SECOND: named("web/2", service_name="shop")}
    )
    assert kept(with_history, text) == [FIRST]


def test_a_name_that_two_machines_have_is_refused_with_both(with_history: StorageConfig) -> None:
    machine_links.update_links(with_history, {FIRST: named("web"), SECOND: named("web")})
    assert links(with_history) == {"web": FIRST}
    with pytest.raises(UsageError) as caught:
        kept(with_history, "web")
    assert FIRST in caught.value.message
    assert SECOND in caught.value.message
    assert kept(with_history, "2bef") == [SECOND]


def test_an_end_that_two_machines_have_is_refused_with_both(with_history: StorageConfig) -> None:
    machine_links.update_links(
        with_history, {FIRST: named("web/2", environment_name="prod"), SECOND: named("web/2", environment_name="test")}
    )
    with pytest.raises(UsageError, match=r"2 machines fit web/2: prod-web_2 \("):
        kept(with_history, "web/2")
    assert kept(with_history, "prod-web/2") == [FIRST]


@pytest.mark.parametrize("record", ["", "[", "[1]", '{"x": 1}', "\\x00"])
def test_a_damaged_record_of_names_leaves_the_links(with_history: StorageConfig, record: str) -> None:
    machine_links.update_links(with_history, {FIRST: named("web")})
    (with_history.state.var_dir / "machine_names.json").write_text(record)
    assert kept(with_history, "web") == [FIRST]
    machine_links.update_links(with_history, {FIRST: named("web")})
    assert FIRST in (with_history.state.var_dir / "machine_names.json").read_text()


def test_a_text_that_names_no_machine_is_refused(with_history: StorageConfig) -> None:
    machine_links.update_links(with_history, {FIRST: named("web/2")})
    with pytest.raises(NotInHistory, match="is not a machine of this storage") as caught:
        kept(with_history, "../" + FIRST)
    assert caught.value.hint == f"there is {SECOND}, web_2"
