"""The requests that have not arrived yet over TLS, with bounds that one network cannot use up for all others."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, Final

from turku.api.configuration.client_network import network_of, site_of
from turku.protocol.codec import MESSAGE_LIMIT_BYTES

ARRIVAL_SECONDS: Final = 60.0
"""The longest time from the first byte of a handshake or request to the last one of the request."""
MOST_ARRIVING: Final = 500
"""Connections whose request has not arrived yet. For one more, one of the network that has most is closed."""
HELD_BYTES: Final = 64 * 1024 * 1024
"""Bytes of all requests that have not arrived whole. For more, one of the network that holds most is closed."""
HEADERS_LIMIT_BYTES: Final = 64 * 1024
_HEADERS_END: Final = b"\r\n\r\n"


class Arrival:
    """A connection whose handshake or request is not complete."""

    def __init__(self, connection: Any, *, is_shaken: bool) -> None:
        self.connection = connection
        self.is_shaken = is_shaken
        self.deadline = time.monotonic() + ARRIVAL_SECONDS
        self.content = bytearray()
        self.is_refused = False
        self.headers_end = -1
        self.total_bytes = 0
        self._searched_bytes = 0

    @property
    def address(self) -> str:
        """The address of the client. Empty for a client of a Unix socket."""
        client = self.connection.client
        return str(client[0]) if isinstance(client, tuple) else ""

    def refusal(self) -> HTTPStatus | None:
        """Return the status for a request that is not taken, and learn its length when its headers are complete."""
        if self.headers_end >= 0:
            return None
        # Only what is new: a client that sends byte by byte would have all of it searched each time.
        self.headers_end = self.content.find(_HEADERS_END, max(0, self._searched_bytes - len(_HEADERS_END) + 1))
        self._searched_bytes = len(self.content)
        if self.headers_end < 0:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if len(self.content) > HEADERS_LIMIT_BYTES else None
        body_bytes = 0
        for line in bytes(self.content[: self.headers_end]).split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"transfer-encoding":
                return HTTPStatus.LENGTH_REQUIRED
            if name.strip().lower() == b"content-length":
                # gunicorn refuses a malformed or second one.
                body_bytes = int(value) if value.strip().isdigit() else 0
        self.total_bytes = self.headers_end + len(_HEADERS_END) + body_bytes
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE if body_bytes > MESSAGE_LIMIT_BYTES else None

    @property
    def is_complete(self) -> bool:
        """True if the whole request is there, and is taken."""
        return not self.is_refused and self.headers_end >= 0 and len(self.content) >= self.total_bytes


class Arrivals:
    """All arrivals of a worker, in the order of their deadlines."""

    def __init__(self) -> None:
        self._by_connection: dict[Any, Arrival] = {}
        self._held_bytes = 0

    def __iter__(self) -> Iterator[Arrival]:
        """Iterate over a copy, so that the caller may end each of them."""
        return iter(list(self._by_connection.values()))

    def begin(self, connection: Any, *, is_shaken: bool) -> Arrival:
        """Return the new arrival of a connection."""
        arrival = self._by_connection[connection] = Arrival(connection, is_shaken=is_shaken)
        return arrival

    def end(self, arrival: Arrival) -> None:
        """Forget an arrival."""
        if self._by_connection.pop(arrival.connection, None) is not None:
            self._held_bytes -= len(arrival.content)

    def is_current(self, arrival: Arrival) -> bool:
        """Return True if the arrival has not ended."""
        return self._by_connection.get(arrival.connection) is arrival

    def hold(self, arrival: Arrival, chunk: bytes) -> None:
        """Add bytes of a request."""
        arrival.content += chunk
        self._held_bytes += len(chunk)

    def release(self, arrival: Arrival, count: int) -> None:
        """Drop the first bytes of a request that is not taken, or of an answer that were sent."""
        del arrival.content[:count]
        self._held_bytes -= count

    def one_too_many(self) -> Arrival | None:
        """Return the oldest arrival of the network that has most of them, if there are more than may be."""
        if len(self._by_connection) <= MOST_ARRIVING:
            return None
        return self._of_the_largest(lambda _arrival: 1)[0]

    def one_too_large(self) -> Arrival | None:
        """Return the longest request of the network that holds most bytes, if all hold more than they may."""
        if self._held_bytes <= HELD_BYTES:
            return None
        found = self._of_the_largest(lambda arrival: len(arrival.content))
        return max(found, key=lambda arrival: len(arrival.content))

    def _of_the_largest(self, size: Callable[[Arrival], int]) -> list[Arrival]:
        """Return the arrivals of the largest network of the largest site. A site of IPv6 has many networks."""
        found = list(self)
        groups: tuple[Callable[[str], str], ...] = (site_of, network_of)
        for group in groups:
            sizes: Counter[str] = Counter()
            for arrival in found:
                sizes[group(arrival.address)] += size(arrival)
            ((largest, _size),) = sizes.most_common(1)
            found = [arrival for arrival in found if group(arrival.address) == largest]
        return found
