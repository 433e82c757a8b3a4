"""The worker that speaks TLS knows when a request has arrived, however it is cut into pieces."""

import contextlib
import itertools
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from turku.api.configuration.tls.arrivals import HEADERS_LIMIT_BYTES, Arrival
from turku.protocol.codec import MESSAGE_LIMIT_BYTES


def arrive(pieces: Sequence[bytes]) -> tuple[Arrival, HTTPStatus | None]:
    """Return the arrival after these pieces, or after the first that was refused."""
    nobody: Any = None
    arrival = Arrival(nobody, is_shaken=True)
    for piece in pieces:
        arrival.content += piece
        if (status := arrival.refusal()) is not None:
            return arrival, status
    return arrival, None


def cut(request: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(request) + 1) for place in places), len(request)]
    return [request[begin:end] for begin, end in itertools.pairwise(edges)]


@given(st.binary(max_size=200), st.lists(st.integers(0, 10_000), max_size=5))
def test_a_request_is_complete_with_its_last_byte(body: bytes, places: list[int]) -> None:
    request = b"POST /v1/health HTTP/1.1\r\ncontent-LENGTH: %d\r\n\r\n" % len(body) + body
    arrival, status = arrive(cut(request, places))
    assert status is None
    assert arrival.is_complete
    arrival, status = arrive([request[place : place + 1] for place in range(len(request))])
    assert status is None
    assert arrival.is_complete
    arrival, status = arrive(cut(request[:-1], places))
    assert status is None
    assert not arrival.is_complete


@given(st.lists(st.binary(max_size=100) | st.sampled_from([b"\r\n", b"\r\n\r\n", b"Content-Length: 9"]), max_size=20))
def test_any_bytes_are_waited_for_refused_or_handed_over(pieces: list[bytes]) -> None:
    # Python refuses to read a number of thousands of digits, and the worker then hangs up.
    with contextlib.suppress(ValueError):
        arrive(pieces)


def test_what_is_too_large_or_has_no_length_is_refused_by_its_headers() -> None:
    assert arrive([b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MESSAGE_LIMIT_BYTES + 1)])[1] == 413
    assert arrive([b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"])[1] == 411
    assert arrive([b"x" * HEADERS_LIMIT_BYTES])[1] is None
    assert arrive([b"x" * HEADERS_LIMIT_BYTES, b"x"])[1] == 431
