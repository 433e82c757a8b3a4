"""N3: whatever bytes arrive at the API, the answer is a 4xx with a sentence, soon, and memory stays bounded.

tests/property/api goes through the fields one by one. Here the bytes go over a socket to the real server.
"""

import json
import random
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from tests.support.coordinator import Coordinator
from tests.support.http_cast import HttpCast
from tests.support.processes import command_lines, parent_of

from turku.protocol.codec import MESSAGE_LIMIT_BYTES

CALLS = (
    *("health", "update_config", "agent_ping_checkin", "agent_ping_restore", "storage_update_config"),
    *("storage_ping_checkin", "storage_ping_source_update", "machine_rotate", "machine_reenrol", "storage_rotate"),
)
DEEP = 200_000
HOSTILE = {
    "nothing": b"",
    "no JSON": b"hello",
    "cut off": b'{"machine": {"uuid": "',
    "a list": b"[]",
    "null": b"null",
    "not UTF-8": b'{"machine": {"uuid": "\xff\xfe", "secret": "x"}}',
    "not UTF-8 in an unknown key": b'{"x": "\xff\xfe"}',
    "UTF-16": "{}".encode("utf-16"),
    "half a surrogate pair": b'{"machine": {"uuid": "\\ud800", "secret": "\\udfff"}}',
    "NUL": b'{"machine": {"uuid": "\\u0000", "secret": "\\u0000"}, "storage": {"name": "\\u0000"}}',
    "deep lists": b"[" * DEEP,
    "deep dictionaries": b'{"machine":' * DEEP,
    "deep in an unknown key": b'{"x":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "a number of a million digits": b'{"machine": {"uuid": ' + b"9" * 1_000_000 + b"}}",
    "infinity": b'{"storage": {"name": "x", "secret": "y", "space_total": 1e999, "space_available": 1e999}}',
    "a long key": b'{"' + b"k" * 1_000_000 + b'": 1}',
    "many keys": b"{" + b",".join(b'"%d":1' % number for number in range(100_000)) + b"}",
    "the same key again and again": b"{" + b",".join([b'"machine":{}'] * 100_000) + b"}",
    "five megabytes": b'{"x": "' + b"x" * (5 * 1024 * 1024) + b'"}',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_n3_hostile_bodies_get_a_sentence(cast: HttpCast, body: bytes) -> None:
    for call in CALLS:
        begin = time.monotonic()
        response = requests.post(f"{cast.coordinator.url}/{call}", data=body, timeout=30)
        # JSON with unknown keys alone is a lawful message of a call without fields.
        lawful = (200,) if call == "health" else ()
        assert response.status_code in (400, *lawful), (call, response.text[:300])
        assert response.status_code == 200 or response.json()["error"]
        assert len(response.content) < 10_000
        assert time.monotonic() - begin < 5


def resident_mib(coordinator: Coordinator) -> float:
    """Memory of the server and its workers."""
    return sum(resident_pages(pid) for pid in family(coordinator)) * 4096 / 2**20


def family(coordinator: Coordinator) -> Iterator[int]:
    assert coordinator._child is not None
    server = coordinator._child.pid
    yield server
    for process in command_lines():
        # It may have ended since.
        with suppress(OSError):
            if parent_of(process) == server:
                yield process


def resident_pages(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1])


def test_n3_memory_is_steady_under_a_flood_of_large_bodies(cast: HttpCast) -> None:
    bodies = [body for body in HOSTILE.values() if len(body) > 100_000]

    def flood(times: int) -> None:
        for number in range(times):
            call, body = CALLS[number % len(CALLS)], bodies[number % len(bodies)]
            try:
                # A connection of its own for each: the server hangs up after a body that it did not read.
                assert requests.post(f"{cast.coordinator.url}/{call}", data=body, timeout=30).status_code < 500
            except requests.ConnectionError:
                # Refused by its length: the server hung up while the rest was on its way.
                assert len(body) > MESSAGE_LIMIT_BYTES

    flood(100)
    before = resident_mib(cast.coordinator)
    flood(300)
    assert resident_mib(cast.coordinator) - before < 40


def test_n3_mutilated_lawful_messages_never_fail_the_server(cast: HttpCast) -> None:
    chance = random.Random(20261124)
    message = {
        "auth": cast.machine_auth,
        "machine": {"uuid": cast.alice.uuid, "secret": cast.alice.secret, "sources": {"etc": {"path": "/etc"}}},
        "storage": {"name": cast.bob.name, "secret": cast.bob.secret},
    }
    lawful = json.dumps(message).encode()
    session = requests.Session()
    for number in range(1000):
        body = bytearray(lawful)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(body))
            body[place : place + chance.randint(0, 3)] = bytes(
                chance.choices(b'{}[]",:0\x00\xff\\u-e', k=chance.randint(0, 3))
            )
        call = CALLS[number % len(CALLS)]
        response = session.post(f"{cast.coordinator.url}/{call}", data=bytes(body))
        assert response.status_code < 500, (call, bytes(body))
        assert response.status_code == 200 or response.json()["error"]
    assert set(cast.alice.due()) <= {"etc", "home"}


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: -1",
        b"Content-Length: 99999999999999999999",
        b"Content-Length: 1e3",
        b"Content-Length: 2\r\nContent-Length: 3",
        b"Transfer-Encoding: nonsense",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3",
        b"X: " + b"x" * 20_000,
        b"\r\n".join(b"X%d: y" % number for number in range(500)),
    ],
    ids=lambda head: head[:40].decode(),
)
def test_n3_malformed_http_is_no_server_error(cast: HttpCast, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", cast.coordinator.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/health HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n\r\n{}")
        status = connection.recv(4096)[9:12]
    assert status[:1] == b"4" or status == b"501", status


def test_n3_a_body_that_never_ends_is_refused_by_its_length(cast: HttpCast) -> None:
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", cast.coordinator.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n{")
        assert connection.recv(4096).startswith(b"HTTP/1.1 400")
    assert time.monotonic() - begin < 5
