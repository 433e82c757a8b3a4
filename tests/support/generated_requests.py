"""Requests that nobody should send, made from lawful ones by a seeded hand: the same seed and number, the same bytes.

    for body in (mutilated(chance, message) for message in ...):    one body
    fuzz = Fuzz(coordinator.port, lawful, seed=1)
    fuzz.run(range(50_000), connections=4)
    fuzz.statuses, fuzz.failures

Every kind of malice is in here: values of other types and sizes anywhere, keys gone or new, cut and turned bytes,
nesting, numbers, Unicode, NUL. Lawful requests are among them, so that the server has work to lose.
"""

import collections
import http.client
import json
import random
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.api_messages import changed, drop, places, put

TEXTS = (
    *("", " ", "\0", "a\nb", "../x", ".", "/", "x.snapshots", "ﬁ", "e\u0301", "\u202eetc", "\ufffd", "😀" * 50),
    *("x" * 300, "x" * 5000, "x" * 70_000, "'; DROP TABLE fleet_machine; --", "{{ 7 * 7 }}", "%s%n", "\\", '"', "<b>"),
    *("daily", "cron * * * * *", "cron 0 0 31 2 *", "9" * 400 + " days", "last 999999999999 snapshots", "merge x"),
    *("- *.tmp", ". /etc/shadow", "dir-merge x", "!", "ssh-ed25519 AAAA", 'command="id" ssh-rsa AAAA'),
    *("00000000-0000-0000-0000-000000000000", "{00000000-0000-0000-0000-000000000000}", "2026-11-24T00:00:00"),
)
NUMBERS = (0, -1, 1, 22, 65_536, 2**31, 2**53 + 1, 2**63, 2**64, -(2**70), 10**300, 0.5, -0.0, 1e-300, 1.8e308, 1e22)
BYTES = (
    b"\x00",
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"\\u0000",
    b"{",
    b"}",
    b"[",
    b'"',
    b",",
    b":",
    b"-",
)


def any_text(chance: random.Random) -> str:
    if chance.random() < 0.6:
        return chance.choice(TEXTS)
    alphabet = chance.choice(
        ["abc-_./ ", "\0\t\r\n\x7f\x85\u2028", "äß\u0130\u017f\u200b\U0001f600", "0123456789eE+-."]
    )
    return "".join(chance.choices(alphabet, k=chance.randint(0, 40)))


def any_value(chance: random.Random, depth: int = 4) -> Any:
    """JSON of any kind."""
    kind = chance.randrange(8 if depth else 6)
    match kind:
        case 0:
            return None
        case 1:
            return chance.random() < 0.5
        case 2 | 3:
            return chance.choice(NUMBERS) if chance.random() < 0.7 else chance.randint(-(2**66), 2**66)
        case 4 | 5:
            return any_text(chance)
        case 6:
            return [any_value(chance, depth - 1) for _ in range(chance.randint(0, 4))]
    return {any_text(chance): any_value(chance, depth - 1) for _ in range(chance.randint(0, 4))}


def _encoded(chance: random.Random, message: Any) -> bytes:
    return json.dumps(message, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")


def _another_value(chance: random.Random, message: Any) -> bytes:
    return _encoded(chance, changed(message, chance.choice(places(message) or [("x",)]), put(any_value(chance))))


def _another_text(chance: random.Random, message: Any) -> bytes:
    """Right types, wrong meanings: these get furthest."""
    texts = [path for path in places(message) if isinstance(_at(message, path), str)]
    return _encoded(chance, changed(message, chance.choice(texts), put(any_text(chance))) if texts else message)


def _at(message: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        message = message[key]
    return message


def _other_keys(chance: random.Random, message: Any) -> bytes:
    found = [path for path in places(message) if isinstance(path[-1], str)]
    if not found:
        return _encoded(chance, {any_text(chance): any_value(chance)})
    path, new = chance.choice(found), any_text(chance)

    def rename(container: Any, key: Any) -> None:
        container[new] = container.pop(key)

    def add(container: Any, _key: Any) -> None:
        container[new] = any_value(chance)

    return _encoded(chance, changed(message, path, chance.choice([drop, rename, add])))


def _other_bytes(chance: random.Random, message: Any) -> bytes:
    body = bytearray(_encoded(chance, message))
    for _ in range(chance.randint(1, 6)):
        place = chance.randint(0, len(body))
        body[place : place + chance.choice([0, 1, 1, 2, 30])] = chance.choice([b"", chance.choice(BYTES), b"0"])
    return bytes(body)


def _cut(chance: random.Random, message: Any) -> bytes:
    body = _encoded(chance, message)
    return body[: chance.randint(0, len(body))]


def _anything(chance: random.Random, _message: Any) -> bytes:
    if chance.random() < 0.5:
        return chance.randbytes(chance.randint(0, 300))
    return _encoded(chance, any_value(chance))


def _extreme(chance: random.Random, message: Any) -> bytes:
    size = chance.choice([10, 1000, 30_000])
    bodies: list[Callable[[], bytes]] = [
        lambda: b"[" * size,
        lambda: b'{"machine":' * size,
        lambda: b'{"x":' + b"[" * size + b"]" * size + b"}",
        lambda: b'{"machine": {"uuid": ' + b"9" * size + b"}}",
        lambda: b'{"' + b"k" * size + b'": 1}',
        lambda: b"{" + b",".join(b'"%d":1' % number for number in range(size // 10)) + b"}",
        lambda: b"{" + b",".join([b'"machine":{}'] * (size // 10)) + b"}",
        lambda: json.dumps(message).encode("utf-16"),
        lambda: b"\xef\xbb\xbf" + json.dumps(message).encode(),
        lambda: json.dumps(message).encode() + b" " * size + b"{}",
        lambda: json.dumps(message).replace(": ", ": 1e999, ", 1).encode(),
    ]
    return chance.choice(bodies)()


_KINDS = (_another_value, _another_text, _other_keys, _other_bytes, _cut, _anything, _extreme)
_WEIGHTS = (25, 25, 15, 15, 5, 7, 3)


def mutilated(chance: random.Random, message: Any) -> bytes:
    """Return a damaged form of a lawful message."""
    (kind,) = chance.choices(_KINDS, _WEIGHTS)
    return kind(chance, message)


@dataclass
class Fuzz:
    """Sends requests to a real server and counts its answers."""

    port: int
    lawful: Mapping[str, Any]
    seed: int
    lawful_share: float = 0.05
    timeout_seconds: float = 30
    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)
    """The requests answered with 5xx, without a sentence, or not at all: number, call, body and answer."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def request(self, number: int) -> tuple[str, bytes]:
        """Call and body of that number."""
        chance = random.Random(f"{self.seed} {number}")
        call = chance.choice(list(self.lawful))
        message = self.lawful[call]
        if chance.random() < self.lawful_share:
            return call, json.dumps(message).encode()
        return call, mutilated(chance, message)

    def run(self, numbers: Iterable[int], *, connections: int = 1) -> None:
        """Send them all, from several connections at once, and return when all are answered."""
        waiting, guard = iter(numbers), threading.Lock()

        def work() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.timeout_seconds)
            while True:
                with guard:
                    number = next(waiting, None)
                if number is None:
                    connection.close()
                    return
                self._send(connection, number, guard)

        threads = [threading.Thread(target=work) for _ in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _send(self, connection: http.client.HTTPConnection, number: int, guard: threading.Lock) -> None:
        call, body = self.request(number)
        try:
            status, answer = self._answer(connection, call, body)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            status, answer = 0, repr(error).encode()
        is_good = status == 200 or (400 <= status < 500 and b'"error":"' in answer)
        with guard:
            self.statuses[status] += 1
            if not is_good:
                self.failures.append(f"{number} {call} {body[:2000]!r}: {status} {answer[:500]!r}")

    @staticmethod
    def _answer(connection: http.client.HTTPConnection, call: str, body: bytes) -> tuple[int, bytes]:
        for is_last in (False, True):
            try:
                connection.request("POST", f"/v1/{call}", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                return response.status, response.read()
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # A worker may hang up an idle connection at any time, as when it is renewed.
                connection.close()
                if is_last:
                    raise
        raise AssertionError
