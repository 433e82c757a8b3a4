"""The arguments of ssh, and the request to the storage."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.support.v1_client import new_ssh_key
from tests.unit.agent.conftest import Write

from turku.agent.config.loading import load
from turku.agent.tunnel import ssh_tunnel
from turku.agent.tunnel.ssh_tunnel import RemotePortTaken
from turku.agent.tunnel.trusted_storages import checked_address
from turku.errors import CommandFailed, InvalidValue, TunnelRefused
from turku.protocol.messages import SourceCredentials, StorageAddress

KEY = new_ssh_key()


def storage(**changes: Any) -> StorageAddress:
    usual: dict[str, Any] = {
        "name": "primary",
        "ssh_ping_host": "storage.example.com",
        "ssh_ping_host_keys": [KEY],
        "ssh_ping_port": 2222,
        "ssh_ping_user": "turku",
    }
    return StorageAddress(**(usual | changes))


def arguments(write: Write, **keys: Any) -> list[str]:
    agent = load(write(**keys))
    address = checked_address(storage())
    key, known = Path("/v a/100%/ssh_key"), Path("/v a/100%/known_hosts")
    return [str(word) for word in ssh_tunnel.ssh_arguments(agent, address, key=key, known_hosts=known, port=50000)]


def options(argv: list[str]) -> list[str]:
    return [value for flag, value in pairwise(argv) if flag == "-o"]


def test_ssh_is_called_as_the_contract_says(write: Write) -> None:
    argv = arguments(write)
    assert argv[:4] == ["ssh", "-F", "none", "-T"]
    assert argv[-8:] == [
        *("-R", "50000:127.0.0.1:50000", "-p", "2222", "-l", "turku"),
        *("storage.example.com", "turku-ping-remote"),
    ]
    for option in (
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "ExitOnForwardFailure=yes",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        'UserKnownHostsFile="/v a/100%%/known_hosts"',
        "GlobalKnownHostsFile=/dev/null",
        'IdentityFile="/v a/100%%/ssh_key"',
    ):
        assert option in options(argv)


def test_an_ipv6_address_is_put_in_brackets(write: Write) -> None:
    assert "50000:[::1]:50000" in arguments(write, rsyncd_local_address="::1")


def test_an_ssh_configuration_of_the_administrators_is_used(write: Write) -> None:
    argv = arguments(write, ssh_command=["ssh", "-F", "/etc/turku-agent/ssh_config"])
    assert argv[:4] == ["ssh", "-F", "/etc/turku-agent/ssh_config", "-T"]


def test_the_known_hosts_are_exactly_the_keys_of_the_coordinator() -> None:
    second = new_ssh_key()
    text = ssh_tunnel.known_hosts_text(checked_address(storage(ssh_ping_host_keys=[KEY, second, KEY])))
    kind, key, _comment = KEY.split()
    assert text.splitlines() == [f"turku-storage {kind} {key}", "turku-storage " + " ".join(second.split()[:2])]


@pytest.mark.parametrize(
    "changes",
    [
        {"ssh_ping_host": "-oProxyCommand=x"},
        {"ssh_ping_host": "a b"},
        {"ssh_ping_user": "-lroot"},
        {"ssh_ping_port": 0},
        {"ssh_ping_host_keys": []},
        {"ssh_ping_host_keys": [f"{KEY}\n* {KEY}"]},
        {"ssh_ping_host_keys": ["@cert-authority * " + KEY]},
        {"name": "../x"},
    ],
)
def test_an_address_that_could_do_harm_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        checked_address(storage(**changes))


def test_the_request_is_json_ended_by_a_dot() -> None:
    content = ssh_tunnel.request_bytes("checkin", port=50000, sources={"etc": SourceCredentials("user", "password")})
    text, dot, rest = content.decode().split("\n")
    assert (dot, rest) == (".", "")
    assert json.loads(text) == {
        "verbose": True,
        "action": "checkin",
        "port": 50000,
        "sources": {"etc": {"username": "user", "password": "password"}},
    }


def test_a_request_that_no_storage_would_read_is_refused() -> None:
    credentials = SourceCredentials("u" * 100, "p" * 100)
    with pytest.raises(CommandFailed, match="2000 sources are more"):
        ssh_tunnel.request_bytes("checkin", port=50000, sources={f"s{number}": credentials for number in range(2000)})


def test_only_a_port_refused_by_the_storage_is_worth_another_try() -> None:
    address = checked_address(storage())
    ssh_tunnel.require_success(address, 0, [])
    refused = ["Error: remote port forwarding failed for listen port 50000"]
    with pytest.raises(RemotePortTaken):
        ssh_tunnel.require_success(address, 255, refused)
    # sshd had the port on ::1 alone and was content. The storage's program saw who has it on 127.0.0.1.
    with pytest.raises(RemotePortTaken):
        ssh_tunnel.require_success(address, TunnelRefused.exit_code, ["another program listens there"])
    for code, lines in ((255, ["Connection refused"]), (2, refused)):
        with pytest.raises(CommandFailed) as error:
            ssh_tunnel.require_success(address, code, lines)
        assert not isinstance(error.value, RemotePortTaken)
        assert error.value.details == lines[0]


def test_addresses_compare_by_what_they_say() -> None:
    assert checked_address(storage()) == replace(checked_address(storage()))


def ciphers(argv: list[str]) -> list[str]:
    return [value.removeprefix("Ciphers=") for value in options(argv) if value.startswith("Ciphers=")]


@pytest.mark.parametrize(
    ("has_aes", "first"), [(True, "aes256-gcm@openssh.com"), (False, "chacha20-poly1305@openssh.com")]
)
def test_the_strong_cipher_that_this_processor_is_fast_at_comes_first(
    write: Write, monkeypatch: pytest.MonkeyPatch, has_aes: bool, first: str
) -> None:
    monkeypatch.setattr(ssh_tunnel, "cpu_has_aes", lambda: has_aes)
    (named,) = ciphers(arguments(write))
    assert named.split(",")[0] == first
    assert len(named.split(",")) == len(set(named.split(","))) == 6
    assert "cbc" not in named


@pytest.mark.parametrize(
    "command",
    [
        ["ssh", "-F", "/etc/ssh/mine"],
        ["ssh", "-F/etc/ssh/mine"],
        ["ssh", "-c", "aes128-ctr"],
        ["ssh", "-caes128-ctr"],
        ["ssh", "-oCiphers=aes128-ctr"],
        ["ssh", "-o", "ciphers aes128-ctr"],
    ],
)
def test_an_administrator_s_ciphers_are_left_alone(write: Write, command: list[str]) -> None:
    assert ciphers(arguments(write, ssh_command=command)) in ([], ["aes128-ctr"])


@pytest.mark.parametrize(
    ("text", "has_aes"),
    [
        ("processor : 0\nflags\t\t: fpu sse2 aes avx\n", True),
        ("processor : 0\nflags\t\t: fpu sse2 vaes_not avx\n", False),
        ("processor : 0\nFeatures\t: fp asimd aes pmull\n", True),
        ("processor : 0\ncpu : POWER9\n", False),
        ("", False),
    ],
)
def test_the_processors_own_encryption_is_read_from_the_kernel(tmp_path: Path, text: str, has_aes: bool) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert ssh_tunnel.cpu_has_aes(tmp_path / "cpuinfo") is has_aes
    assert not ssh_tunnel.cpu_has_aes(tmp_path / "missing")


def test_former_keys_are_offered_after_the_present_one(write: Write) -> None:
    argv = ssh_tunnel.ssh_arguments(
        load(write()),
        checked_address(storage()),
        key=Path("/v/ssh_key"),
        previous_keys=[Path("/v/ssh_key.previous-2"), Path("/v/ssh_key.previous-1")],
        known_hosts=Path("/v/known_hosts"),
        port=50000,
    )
    keys = [value for value in options([str(word) for word in argv]) if value.startswith("IdentityFile=")]
    assert keys == [f'IdentityFile="/v/{name}"' for name in ("ssh_key", "ssh_key.previous-2", "ssh_key.previous-1")]


def test_fields_that_a_storage_of_the_existing_system_lacks_are_sent_only_with_a_value() -> None:
    plain = json.loads(ssh_tunnel.request_bytes("checkin", port=50000, sources={}).splitlines()[0])
    assert set(plain) == {"action", "port", "verbose", "sources"}
    content = ssh_tunnel.request_bytes(
        "checkin", port=50000, sources={}, withheld={"data": "is not mounted"}, parallel_sources=3
    )
    request = json.loads(content.splitlines()[0])
    assert (request["withheld"], request["parallel_sources"]) == ({"data": "is not mounted"}, 3)
