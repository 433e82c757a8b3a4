"""The messages by which history is looked at and handed out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.landed_restore import TEMPORARY_NAME

from turku.errors import MalformedMessage
from turku.protocol import codec
from turku.protocol.restore_messages import (
    Answer,
    FileRestoreRequest,
    FileRow,
    HistoryRequest,
    ManifestEntry,
    ParentDirectory,
    RestorePlan,
    path_bytes,
    time_ns,
    wire_path,
    wire_time,
)


@given(st.binary(max_size=300))
def test_a_path_of_any_bytes_travels(path: bytes) -> None:
    sent = codec.encode(ManifestEntry(wire_path(path), "file", 0, (0, 0), True, None))
    assert path_bytes(codec.decode(sent, ManifestEntry).path) == path


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**9 - 1))
def test_a_time_of_any_file_system_travels(second: int, rest: int) -> None:
    sent_ns = second * 10**9 + rest
    modified = wire_time(sent_ns)
    for message in (
        FileRow("x", "file", modified=modified),
        ManifestEntry("x", "file", 0, modified, True, None, None, b"\1" * 16),
        ParentDirectory("x", 0, 0, 0, modified),
    ):
        assert time_ns(codec.decode(codec.encode(message), type(message)).modified) == sent_ns


def test_a_readable_path_is_readable() -> None:
    assert wire_path("snö".encode()) == "snö"
    assert json.loads(codec.encode([wire_path(b"caf\xe9")])) == [{"b64": "Y2Fm6Q=="}]


def test_a_field_that_is_not_set_is_not_sent() -> None:
    request = HistoryRequest("restore_files", restore_files=FileRestoreRequest("etc", TEMPORARY_NAME))
    assert json.loads(codec.encode(request)) == {
        "action": "restore_files",
        "restore_files": {"source": "etc", "temporary": TEMPORARY_NAME},
    }


def test_answers_are_told_apart_by_their_row() -> None:
    assert codec.decode(b'{"row": "plan", "snapshot": "x"}', Answer) == RestorePlan("x")  # type: ignore[arg-type]
    with pytest.raises(MalformedMessage):
        codec.decode(b'{"row": "other"}', Answer)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "message",
    [
        {
            "action": "restore_files",
            "restore_files": {"source": "etc", "temporary": TEMPORARY_NAME, "paths": ["x"] * 1001},
        },
        {
            "action": "restore_files",
            "restore_files": {"source": "etc", "temporary": TEMPORARY_NAME, "overwrite": "maybe"},
        },
        {"action": "restore_files", "restore_files": {"source": "etc"}},
        {"action": "restore_files", "restore_files": {"source": "etc", "temporary": ".turku-restore"}},
        {"action": "restore_files", "restore_files": {"source": "etc", "temporary": f"{TEMPORARY_NAME}\n"}},
        {"action": "browse", "browse": {"listing": "ls", "sources": []}},
        {"action": "browse", "browse": {"listing": "ls", "sources": ["etc"], "limit": 0}},
        {"action": "browse", "browse": {"listing": "ls", "sources": ["etc"], "path": {"b64": "?"}}},
        {"action": "restore_files", "port": 80},
    ],
    ids=str,
)
def test_bounds_are_held(message: object) -> None:
    with pytest.raises(MalformedMessage):
        codec.decode(json.dumps(message).encode(), HistoryRequest)
