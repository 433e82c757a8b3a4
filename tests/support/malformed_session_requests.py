"""Input of a compromised machine for the forced command on standard input. None of it is a request.

body = malformed(seed, number)      the same bytes for the same seed and number
"""

import json
import random
from typing import Any

from tests.support.api_messages import changed, drop, places, put
from tests.support.generated_requests import any_text, any_value, mutilated

from turku.protocol.session_framing import SESSION_REQUEST_LIMIT_BYTES

LAWFUL: dict[str, Any] = {
    "action": "checkin",
    # Nothing listens there: what is a request after all ends with that.
    "port": 1024,
    "verbose": True,
    "sources": {"etc": {"username": "u", "password": "p"}},
}
_ENDS = (b"\n.\n", b"\r\n.\r\n", b"\n.", b"\n", b"", b"\n..\n", b"\n. \n", b" .\n", b"\n.\n" + b"x" * 100_000)
_FLOOD_BYTES = 2 * SESSION_REQUEST_LIMIT_BYTES


def malformed(seed: int, number: int) -> bytes:
    """The request of that number, its end included, where it has one."""
    chance = random.Random(f"{seed} {number}")
    make = chance.choices(
        [_mutilated, _wrong_port, _wrong_field, _wrong_credentials, _without_end, _noise, _flood, _deep, _many],
        [25, 15, 15, 10, 10, 10, 5, 5, 5],
    )[0]
    return make(chance)


def _ended(chance: random.Random, body: bytes) -> bytes:
    return body + (b"\n.\n" if chance.random() < 0.7 else chance.choice(_ENDS))


def _mutilated(chance: random.Random) -> bytes:
    return _ended(chance, mutilated(chance, LAWFUL))


def _wrong_port(chance: random.Random) -> bytes:
    ports: list[object] = [0, 1, 22, 80, 1023, 65_536, -1, 2**31, 2**64, 10**400, 0.5, "22", "", None, True, [], {}]
    return _ended(chance, json.dumps({**LAWFUL, "port": chance.choice(ports)}).encode())


def _wrong_field(chance: random.Random) -> bytes:
    path = chance.choice(places(LAWFUL))
    change = chance.choice(
        [drop, put(any_value(chance)), put(any_text(chance)), put((any_text(chance) * 1000)[:_FLOOD_BYTES])]
    )
    return _ended(chance, json.dumps(changed(LAWFUL, path, change)).encode("utf-8", "surrogatepass"))


def _wrong_credentials(chance: random.Random) -> bytes:
    sources = {any_text(chance): chance.choice([any_value(chance), {"username": any_text(chance), "password": ""}])}
    return _ended(chance, json.dumps({**LAWFUL, "sources": sources}).encode("utf-8", "surrogatepass"))


def _without_end(chance: random.Random) -> bytes:
    body = json.dumps(LAWFUL).encode()
    return body[: chance.randint(0, len(body))]


def _noise(chance: random.Random) -> bytes:
    return _ended(chance, chance.randbytes(chance.choice([0, 1, 30, 3000, 100_000])))


def _flood(chance: random.Random) -> bytes:
    unit = chance.choice([b"x", b"\0", b"\n", b"\n\n.", b"[", b'{"a":', b"\xff", b" .\n", b'"\\u0000",'])
    return unit * (chance.choice([SESSION_REQUEST_LIMIT_BYTES // 2, _FLOOD_BYTES, 10_000_000]) // len(unit))


def _deep(chance: random.Random) -> bytes:
    opening, closing = chance.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'{"sources":', b"}")])
    depth = chance.choice([100, 1000, 20_000])
    middle = opening * depth + b"1" + closing * depth
    return _ended(chance, chance.choice([middle, b'{"sources": ' + middle + b"}", b'{"x": ' + middle + b"}"]))


def _many(chance: random.Random) -> bytes:
    count = chance.choice([100, 5000])
    sources = {f"s{number}": {"username": "u", "password": "p"} for number in range(count)}
    return _ended(chance, json.dumps({**LAWFUL, "action": "erase", "sources": sources}).encode())
