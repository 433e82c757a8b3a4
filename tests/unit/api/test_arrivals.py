"""Bounds of the requests that have not arrived over TLS: a network that uses them up pays for it itself."""

from dataclasses import dataclass
from typing import Any

import pytest

from turku.api.commands import serve
from turku.api.configuration.tls import arrivals, worker
from turku.api.configuration.tls.arrivals import Arrival, Arrivals


@dataclass(eq=False)
class Connection:
    client: tuple[str, int]


def connection(address: str, port: int = 0) -> Any:
    return Connection((address, port))


def begin(all_arrivals: Arrivals, address: str, content: bytes = b"") -> Arrival:
    arrival = all_arrivals.begin(connection(address), is_shaken=True)
    all_arrivals.hold(arrival, content)
    return arrival


def test_the_network_that_has_most_connections_loses_its_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "MOST_ARRIVING", 3)
    found = Arrivals()
    machine = begin(found, "192.0.2.1")
    flood = [begin(found, f"2001:db8::{number}") for number in range(2)]
    assert found.one_too_many() is None
    other = begin(found, "192.0.2.2")
    assert found.one_too_many() is flood[0]
    found.end(flood[0])
    assert found.one_too_many() is None
    assert list(found) == [machine, flood[1], other]


def test_the_network_that_holds_most_bytes_loses_its_longest_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "HELD_BYTES", 100)
    found = Arrivals()
    begin(found, "192.0.2.1", b"x" * 50)
    begin(found, "192.0.2.9", b"x" * 20)
    assert found.one_too_large() is None
    longest = begin(found, "192.0.2.9", b"x" * 40)
    assert found.one_too_large() is longest
    found.end(longest)
    # It was ended twice by two events of one round.
    found.end(longest)
    assert found.one_too_large() is None


def test_a_site_of_ipv6_with_many_networks_pays_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "MOST_ARRIVING", 4)
    found = Arrivals()
    begin(found, "2001:db8:9::1")
    flood = [begin(found, f"2001:db8:1:{number}::1") for number in (1, 2)]
    begin(found, "192.0.2.1")
    flood.append(begin(found, "2001:db8:1:2::2"))
    # The site has most, and in it the network with two.
    assert found.one_too_many() is flood[1]


def test_all_connections_that_wait_leave_room_to_accept() -> None:
    assert arrivals.MOST_ARRIVING + worker.MOST_IDLE <= serve.CONNECTIONS * 3 / 4


def test_a_refused_request_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "HELD_BYTES", 10)
    found = Arrivals()
    refused = begin(found, "192.0.2.1", b"x" * 20)
    found.release(refused, 20)
    assert found.one_too_large() is None
    found.end(refused)
    begin(found, "192.0.2.1", b"x" * 10)
    assert found.one_too_large() is None
