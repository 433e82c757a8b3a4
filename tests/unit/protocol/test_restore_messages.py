"""The messages by which history is looked at and handed out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turku.errors import MalformedMessage
from turku.protocol import codec
from turku.protocol.restore_messages import (
    Answer,
    HistoryRequest,
    ManifestEntry,
    RecoverPlan,
    RecoverRequest,
    path_bytes,
    wire_path,
)


@given(st.binary(max_size=300))
def test_a_path_of_any_bytes_travels(path: bytes) -> None:
    sent = codec.encode(ManifestEntry(wire_path(path), "file", 0, 0, True, True, None))
    assert path_bytes(codec.decode(sent, ManifestEntry).path) == path


def test_a_readable_path_is_readable() -> None:
    assert wire_path("snö".encode()) == "snö"
    assert json.loads(codec.encode([wire_path(b"caf\xe9")])) == [{"b64": "Y2Fm6Q=="}]


def test_what_is_not_said_is_not_sent() -> None:
    request = HistoryRequest("recover", recover=RecoverRequest("etc"))
    assert json.loads(codec.encode(request)) == {"action": "recover", "recover": {"source": "etc"}}


def test_answers_are_told_apart_by_their_row() -> None:
    assert codec.decode(b'{"row": "plan", "snapshot": "x"}', Answer) == RecoverPlan("x")  # type: ignore[arg-type]
    with pytest.raises(MalformedMessage):
        codec.decode(b'{"row": "other"}', Answer)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "message",
    [
        {"action": "recover", "recover": {"source": "etc", "paths": ["x"] * 1001}},
        {"action": "recover", "recover": {"source": "etc", "overwrite": "maybe"}},
        {"action": "look", "look": {"what": "files", "sources": []}},
        {"action": "look", "look": {"what": "files", "sources": ["etc"], "limit": 0}},
        {"action": "look", "look": {"what": "files", "sources": ["etc"], "path": {"b64": "?"}}},
        {"action": "recover", "port": 80},
    ],
    ids=str,
)
def test_bounds_are_held(message: object) -> None:
    with pytest.raises(MalformedMessage):
        codec.decode(json.dumps(message).encode(), HistoryRequest)
