"""One codec: what is not the contract's is refused with a sentence that names the field."""

import json
from typing import Any

import pytest

from turku.errors import MalformedMessage
from turku.protocol import codec
from turku.protocol.messages import (
    AgentPingCheckinAnswer,
    MachineConfiguration,
    Registration,
    SessionRequest,
    SourceReport,
    StoragePingSourceUpdateRequest,
    StorageUpdateConfigRequest,
    UpdateConfigRequest,
)

STORAGE = {
    "name": "primary",
    "secret": "s" * 30,
    "ssh_ping_host": "storage.example.com",
    "ssh_ping_host_keys": [],
    "ssh_ping_port": 22,
    "ssh_ping_user": "root",
    "space_total": 1000.5,
    "space_available": 10,
}
ORDER = {
    "path": "/etc",
    "storage": {
        "name": "primary",
        "ssh_ping_host": "storage.example.com",
        "ssh_ping_host_keys": ["ssh-ed25519 AAAA"],
        "ssh_ping_port": 22,
        "ssh_ping_user": "root",
    },
}


def decoded(message: Any, kind: type[Any]) -> Any:
    return codec.decode(json.dumps(message).encode(), kind)


@pytest.mark.parametrize("auth", ["nameless string", {"name": "machines", "secret": "s"}])
def test_both_ways_to_register_are_read(auth: Any) -> None:
    request = decoded({"auth": auth, "machine": {"uuid": "u", "secret": "s"}}, UpdateConfigRequest)
    assert request.auth == (auth if isinstance(auth, str) else Registration(**auth))


def test_unknown_keys_are_for_newer_programs_and_no_error() -> None:
    assert decoded({"machine": {"uuid": "u", "secret": "s", "colour": 1}, "extra": []}, UpdateConfigRequest)


def test_source_options_are_kept_verbatim() -> None:
    options = {"path": "/etc", "mine": {"deep": [1, None, "x"]}}
    request = decoded({"machine": {"uuid": "u", "secret": "s", "sources": {"etc": options}}}, UpdateConfigRequest)
    assert request.machine.sources == {"etc": options}


def test_sources_left_out_and_sources_empty_are_told_apart() -> None:
    without = decoded({"machine": {"uuid": "u", "secret": "s"}}, UpdateConfigRequest)
    empty = decoded({"machine": {"uuid": "u", "secret": "s", "sources": {}}}, UpdateConfigRequest)
    assert without.machine.sources != empty.machine.sources == {}


def test_integers_and_floats_are_both_space_figures() -> None:
    assert decoded({"storage": STORAGE}, StorageUpdateConfigRequest).storage.space_available == 10


@pytest.mark.parametrize(
    ("message", "kind", "field"),
    [
        ({"machine": {"secret": "s"}}, UpdateConfigRequest, "machine"),
        ({"machine": {"uuid": 5, "secret": "s"}}, UpdateConfigRequest, "`machine.uuid`"),
        ({"machine": {"uuid": "u", "secret": "s", "sources": []}}, UpdateConfigRequest, "`machine.sources`"),
        ({"machine": {"uuid": "u" * 5000, "secret": "s"}}, UpdateConfigRequest, "`machine.uuid`"),
        ({"storage": {**STORAGE, "ssh_ping_port": 0}}, StorageUpdateConfigRequest, "`storage.ssh_ping_port`"),
        ({"storage": {**STORAGE, "space_total": -1}}, StorageUpdateConfigRequest, "`storage.space_total`"),
        ({"storage": {**STORAGE, "space_available": 1e308}}, StorageUpdateConfigRequest, "`storage.space_available`"),
        ({"storage": {**STORAGE, "ssh_ping_host_keys": [1]}}, StorageUpdateConfigRequest, "ssh_ping_host_keys"),
        ([], UpdateConfigRequest, "at the top of the message"),
        (None, UpdateConfigRequest, "at the top of the message"),
        ({"action": "shell", "port": 50000}, SessionRequest, "`action`"),
        ({"action": "checkin", "port": 22}, SessionRequest, "`port`"),
        ({"action": "checkin", "port": "50000"}, SessionRequest, "`port`"),
    ],
)
def test_a_mistake_is_named_by_its_path(message: Any, kind: type[Any], field: str) -> None:
    with pytest.raises(MalformedMessage) as refused:
        decoded(message, kind)
    assert field in refused.value.message


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": "\xff"}', b"{} {}", b"NaN"])
def test_a_text_that_is_not_json_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedMessage):
        codec.decode(content, UpdateConfigRequest)


def test_deep_nesting_is_refused_and_ends_nothing() -> None:
    deep = (
        b'{"machine": {"uuid": "u", "secret": "s", "sources": {"x": {"y": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}}}"
    )
    with pytest.raises(MalformedMessage, match="nested too deeply"):
        codec.decode(deep, UpdateConfigRequest)


def test_a_message_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(MalformedMessage, match="larger than 10 bytes"):
        codec.decode(b"[" * 11, UpdateConfigRequest, limit_bytes=10)


def test_a_long_value_is_not_quoted_in_whole() -> None:
    with pytest.raises(MalformedMessage, match="`action`") as refused:
        codec.decode(json.dumps({"action": "x" * 200_000, "port": 50_000}).encode(), SessionRequest)
    assert len(refused.value.message) < 500


def test_a_message_survives_the_way_there_and_back() -> None:
    request = UpdateConfigRequest(
        auth="string",
        machine=MachineConfiguration(uuid="u", secret="s", unit_name="é", sources={"etc": {"path": "/etc"}}),
    )
    assert codec.decode(codec.encode(request), UpdateConfigRequest) == request


def test_a_field_that_is_not_set_is_not_sent() -> None:
    message = json.loads(codec.encode(UpdateConfigRequest(machine=MachineConfiguration(uuid="u", secret="s"))))
    assert message == {"machine": {"uuid": "u", "secret": "s"}}


def test_an_order_needs_only_path_and_storage() -> None:
    order = decoded({"machine": {"scheduled_sources": {"etc": ORDER}}}, AgentPingCheckinAnswer)
    etc = order.machine.scheduled_sources["etc"]
    assert (etc.path, etc.filter, etc.exclude, etc.bwlimit, etc.snapshot_mode) == ("/etc", [], [], None, None)


def test_a_report_of_an_older_storage_may_lack_everything() -> None:
    message = {"storage": {"name": "n", "secret": "s"}, "machine": {"uuid": "u", "sources": {"etc": {}}}}
    assert decoded(message, StoragePingSourceUpdateRequest).machine.sources == {"etc": SourceReport()}
