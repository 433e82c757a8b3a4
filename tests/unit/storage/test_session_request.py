"""Reading an agent's request: whole or refused, whatever comes and however it is cut (threats M7)."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from turku.errors import MalformedMessage
from turku.protocol.messages import SessionRequest
from turku.protocol.session_framing import SESSION_REQUEST_LIMIT_BYTES
from turku.storage.session import request as session_request

REQUEST = {"verbose": True, "action": "checkin", "port": 50000, "sources": {"etc": {"username": "u", "password": "p"}}}
TEXT = json.dumps(REQUEST).encode()


@contextmanager
def pipe(*chunks: bytes, closed: bool = False) -> Iterator[int]:
    """A descriptor to read the chunks from, written one after the other by a thread."""
    reading, writing = os.pipe()

    def write() -> None:
        try:
            for chunk in chunks:
                os.write(writing, chunk)
        except BrokenPipeError:
            pass
        if closed:
            os.close(writing)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield reading
    finally:
        os.close(reading)
        thread.join()
        if not closed:
            os.close(writing)


def read(*chunks: bytes, closed: bool = False, timeout_seconds: float = 5) -> SessionRequest:
    with pipe(*chunks, closed=closed) as descriptor:
        content = session_request.read(descriptor, timeout_seconds=timeout_seconds)
        request = session_request.parse(content, session_request.kind_of(content))
        assert isinstance(request, SessionRequest)
        return request


@pytest.mark.parametrize("end", [b"\n.\n", b"\r\n.\r\n", b"\n\n.\n", b"\n.\nmore"])
def test_a_request_ends_with_a_line_that_is_a_single_dot(end: bytes) -> None:
    request = read(TEXT + end)
    assert (request.action, request.port, request.verbose) == ("checkin", 50000, True)
    assert request.sources["etc"].username == "u"


def test_a_request_may_come_byte_by_byte() -> None:
    whole = TEXT + b"\r\n.\r\n"
    assert read(*(whole[index : index + 1] for index in range(len(whole)))).port == 50000


def test_indented_json_is_read_as_well() -> None:
    assert read(json.dumps(REQUEST, indent=4).encode() + b"\n.\n").port == 50000


def test_dots_in_other_places_do_not_end_it() -> None:
    text = json.dumps({**REQUEST, "comment": ".\n."}).encode().replace(b", ", b",\n. \n"[:2])
    assert read(text + b"\n.\n").port == 50000


def test_a_last_line_without_an_end_counts_when_input_ends() -> None:
    assert read(TEXT + b"\n.", closed=True).port == 50000


def test_input_that_ends_too_early_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="ended before its last line"):
        read(TEXT, closed=True)
    with pytest.raises(MalformedMessage, match="ended before its last line"):
        read(closed=True)


def test_input_that_never_ends_is_refused_in_bounded_time() -> None:
    with pytest.raises(MalformedMessage, match="did not end within"):
        read(TEXT + b"\n", timeout_seconds=0.05)


def test_more_than_the_limit_is_refused_while_it_comes() -> None:
    with pytest.raises(MalformedMessage, match="larger than"):
        read(*([b" " * 10_000] * (2 * SESSION_REQUEST_LIMIT_BYTES // 10_000)))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"port": 80}, "port"),
        ({"port": 1023}, "port"),
        ({"port": 0}, "port"),
        ({"port": -1}, "port"),
        ({"port": 65536}, "port"),
        ({"port": 50000.5}, "port"),
        ({"port": True}, "port"),
        ({"port": None}, "port"),
        ({"action": "destroy"}, "action"),
        ({"verbose": "yes"}, "verbose"),
        ({"sources": []}, "sources"),
        ({"sources": {"etc": {"username": "u"}}}, "password"),
        ({"sources": {"etc": {"username": "", "password": "p"}}}, "username"),
        ({"sources": {"etc": {"username": "u", "password": "p" * 200}}}, "password"),
        ({"moment_ns": -1}, "moment_ns"),
        ({"moment_ns": 2**63}, "moment_ns"),
        ({"moment_ns": "now"}, "moment_ns"),
        ({"moment_ns": None}, "moment_ns"),
    ],
)
def test_a_malformed_field_is_named(change: dict[str, object], field: str) -> None:
    with pytest.raises(MalformedMessage, match=field):
        read(json.dumps({**REQUEST, **change}).encode() + b"\n.\n")


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"\xff", b"{", b"[" * 100_000, b'{"port": 1e999}'])
def test_a_text_that_is_no_request_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedMessage):
        read(text + b"\n.\n")
