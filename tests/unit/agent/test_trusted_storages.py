"""The storages that a machine knows: learned keys, waiting keys and trusted keys."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.v1_client import new_ssh_key
from tests.unit.agent.conftest import Write

from turku.agent.config.loading import load
from turku.agent.config.model import AgentConfig
from turku.agent.tunnel import trusted_storages
from turku.agent.tunnel.trusted_storages import Address
from turku.core.configuration.declaration import with_values
from turku.errors import ConfigurationError, StorageNotTrusted
from turku.policy import ssh_key

OLD, NEW, OTHER = (" ".join(new_ssh_key().split()[:2]) for _ in range(3))
Make = Callable[..., AgentConfig]


@pytest.fixture
def agent(write: Write) -> Make:
    return lambda **keys: load(write(**keys))


def address(name: str, *keys: str, host: str = "storage.example.com") -> Address:
    return Address(name=name, host=host, port=22, user="turku", host_keys=keys)


def trusted(agent: AgentConfig, *addresses: Address) -> list[tuple[str, ...]]:
    """Return the trusted keys of each address, or none of one that is refused."""
    return [
        () if isinstance(verdict, StorageNotTrusted) else verdict.host_keys
        for verdict in trusted_storages.check_trust(agent, addresses)
    ]


def pending(agent: AgentConfig) -> set[str]:
    return set(trusted_storages.pending(agent.state))


def test_all_storages_of_the_first_answer_are_trusted_and_no_later_one(agent: Make) -> None:
    machine = agent()
    assert trusted(machine, address("one", OLD), address("two", NEW)) == [(OLD,), (NEW,)]
    assert trusted(machine, address("three", OTHER), address("one", OLD)) == [(), (OLD,)]
    assert pending(machine) == {"three"}


def test_an_answer_that_says_two_things_of_one_storage_is_believed_once(agent: Make) -> None:
    assert trusted(agent(), address("one", OLD), address("one", NEW)) == [(OLD,), ()]


def test_an_empty_record_is_no_first_contact(agent: Make, tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var/known_storages.json").write_text("{}")
    assert trusted(agent(), address("one", OLD)) == [()]


@pytest.mark.parametrize("content", ["", "[]", '{"one": {}}', '{"one": {"host_keys": "x"}}', "\x00", "{"])
def test_a_damaged_record_is_reported(agent: Make, tmp_path: Path, content: str) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var/known_storages.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"known_storages\.json cannot be read"):
        trusted_storages.check_trust(agent(), [address("one", OLD)])


def test_a_known_key_is_known_under_any_name_but_one_that_the_configuration_has(agent: Make) -> None:
    machine = agent()
    trusted(machine, address("one", OLD))
    assert trusted(machine, address("renamed", OLD)) == [(OLD,)]
    configured = with_values(machine, storage_host_keys={"renamed": (NEW,)})
    assert trusted(configured, address("renamed", OLD)) == [()]
    assert trusted(configured, address("one", OLD), address("one", NEW)) == [(OLD,), (NEW,)]


def test_the_configured_keys_of_a_name_replace_the_learned_ones(agent: Make) -> None:
    machine = agent()
    trusted(machine, address("one", OLD))
    configured = with_values(machine, storage_host_keys={"one": (NEW,)})
    assert trusted(configured, address("one", OLD), address("two", OLD), address("one", NEW)) == [(), (), (NEW,)]


def test_with_a_configuration_nothing_is_learned(agent: Make, tmp_path: Path) -> None:
    machine = agent(storage_host_keys={"one": [OLD]})
    assert trusted(machine, address("one", OLD), address("two", NEW)) == [(OLD,), ()]
    assert not (tmp_path / "var/known_storages.json").exists()


@pytest.mark.parametrize(
    ("choice", "first", "later"), [("first", (OLD,), ()), ("always", (OLD,), (NEW,)), ("never", (), ())]
)
def test_the_administrator_chooses_what_is_trusted_unseen(
    agent: Make, choice: str, first: tuple[str, ...], later: tuple[str, ...]
) -> None:
    machine = agent(trust_new_storages=choice)
    assert trusted(machine, address("one", OLD)) == [first]
    assert trusted(machine, address("two", NEW)) == [later]
    assert trusted(machine, address("one", OTHER), address("two", OTHER)) == [(), ()]


def test_of_several_keys_the_known_ones_count_and_the_others_wait(agent: Make) -> None:
    machine = agent()
    trusted(machine, address("one", OLD))
    assert trusted(machine, address("one", NEW, OLD)) == [(OLD,)]
    assert pending(machine) == {"one"}
    assert trusted_storages.accept(machine, "one") == ([NEW], [])
    assert trusted(machine, address("one", NEW, OLD), address("one", NEW)) == [(NEW, OLD), (NEW,)]
    assert pending(machine) == set()


def test_a_waiting_key_is_forgotten_when_the_coordinator_takes_it_back(agent: Make) -> None:
    machine = agent()
    trusted(machine, address("one", OLD))
    trusted(machine, address("one", NEW))
    trusted(machine, address("one", OLD))
    assert pending(machine) == set()


def test_a_key_that_is_not_announced_any_more_ends_with_an_acceptance(agent: Make) -> None:
    machine = agent()
    trusted(machine, address("one", OLD))
    trusted(machine, address("one", NEW))
    assert trusted_storages.accept(machine, "one") == ([NEW], [OLD])
    assert trusted(machine, address("one", OLD), address("one", NEW)) == [(), (NEW,)]


def test_only_the_key_of_the_fingerprint_is_accepted(agent: Make) -> None:
    machine = agent()
    trusted(machine, address("one", OLD))
    trusted(machine, address("one", NEW, OTHER))
    with pytest.raises(ConfigurationError, match="no key of one that waits has the fingerprint SHA256:x"):
        trusted_storages.accept(machine, "one", fingerprints=["SHA256:x"])
    fingerprint = ssh_key.ssh_host_key(NEW).fingerprint
    assert trusted_storages.accept(machine, "one", fingerprints=[fingerprint]) == ([NEW], [OLD])
    assert trusted(machine, address("one", NEW, OTHER)) == [(NEW,)]
    assert pending(machine) == {"one"}


@pytest.mark.parametrize("name", ["two", ""])
def test_only_what_waits_can_be_accepted(agent: Make, name: str) -> None:
    machine = agent()
    trusted(machine, address("one", OLD))
    with pytest.raises(ConfigurationError, match="waits to be accepted"):
        trusted_storages.accept(machine, name)


def test_the_same_answer_again_writes_nothing(agent: Make, tmp_path: Path) -> None:
    machine = agent()
    trusted(machine, address("one", OLD))
    trusted(machine, address("one", NEW))
    before = {path: path.stat().st_ino for path in (tmp_path / "var").iterdir()}
    trusted(machine, address("one", NEW))
    assert {path: path.stat().st_ino for path in (tmp_path / "var").iterdir()} == before


def test_the_listing_distinguishes_trusted_from_waiting(agent: Make) -> None:
    machine = agent(storage_host_keys={"configured": [OTHER]}, trust_new_storages="always")
    trusted(machine, address("one", OLD))
    trusted(machine, address("one", NEW, host="evil.example.com"))
    lines = trusted_storages.listing(machine)
    waiting = lines.index("Waiting to be accepted:")
    shown = {key: lines.index(f"        {trusted_storages.shown(key)}") for key in (OLD, NEW, OTHER)}
    assert shown[OLD] < waiting
    assert shown[OTHER] < waiting
    assert shown[NEW] > waiting
    assert any("evil.example.com port 22" in line for line in lines[waiting:])


def test_a_fingerprint_is_the_one_that_ssh_keygen_shows() -> None:
    # ssh-keygen -lf of OpenSSH 9.2 for this key.
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE3bFZ6mA0oSg3eV1kLxJXqKZb1c0wqk2P8oZ4n5c3dF"
    assert ssh_key.ssh_host_key(key).fingerprint == "SHA256:YQCEQs4eS7nppLRFle/Nc6PJ00OF7fawi9qYLjRZ6Wg"


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"one": []}, "storage_host_keys"),
        ({"one": ["ssh-ed25519 AAAA"]}, "storage_host_keys: one: the SSH key"),
        ({"../one": [OLD]}, "storage_host_keys: ../one"),
        ([OLD], "storage_host_keys"),
        ({"one": OLD}, "storage_host_keys"),
    ],
)
def test_keys_of_the_configuration_are_checked(write: Write, keys: Any, fault: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(write(storage_host_keys=keys))
    assert fault in refused.value.message


def test_the_record_is_closed_to_others(agent: Make, tmp_path: Path) -> None:
    trusted(agent(), address("one", OLD))
    path = tmp_path / "var/known_storages.json"
    assert path.stat().st_mode & 0o077 == 0
    assert json.loads(path.read_text())["one"]["host_keys"] == [OLD]
