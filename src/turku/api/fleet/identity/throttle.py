"""Refusal of addresses that send too many bad credentials, before the database is asked (threat N2).

Each process counts by itself and adds to the shared count in the database now and then. So a bad request costs less
than a good one, a good one costs nothing more, and all workers refuse together.
"""

import hashlib
import hmac
import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from django.conf import settings
from django.db import DatabaseError
from django.db.models import F

from turku.api.configuration.client_network import network_of
from turku.api.fleet.models import BadCredentialCount
from turku.core.clock import SYSTEM_CLOCK, Clock

_log = logging.getLogger(__name__)

Value = TypeVar("Value")
REMEMBERED_ADDRESSES = 20_000
REMEMBERED_CALLERS = 50_000
REMEMBERED_PLACES = 4
"""Networks from which one caller is remembered. One good credential must not push all others out of memory."""


class BoundedCache(Generic[Value]):
    """A dictionary that drops its oldest entries, so that memory stays bounded."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[str, Value] = OrderedDict()

    def get(self, key: str) -> Value | None:
        return self._values.get(key)

    def put(self, key: str, value: Value) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._limit:
            self._values.popitem(last=False)

    def drop(self, key: str) -> None:
        self._values.pop(key, None)


class _GoodCredentials:
    """Credentials that were right, by caller and network.

    The cache holds a digest of the credential under a key of this process, not only the name. So requests that others
    send under that name neither end the exemption nor profit from it.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._digests: BoundedCache[dict[str, bytes]] = BoundedCache(REMEMBERED_CALLERS)

    def _digest(self, secret: str) -> bytes:
        return hmac.digest(self._key, secret.encode("utf-8", "surrogatepass"), hashlib.sha256)

    def note(self, caller: str, network: str, secret: str) -> None:
        places = self._digests.get(caller) or {}
        # The newest is last, even if it was there before.
        places.pop(network, None)
        places[network] = self._digest(secret)
        if len(places) > REMEMBERED_PLACES:
            del places[next(iter(places))]
        self._digests.put(caller, places)

    def holds(self, caller: str, network: str, secret: str) -> bool:
        known = (self._digests.get(caller) or {}).get(network)
        return known is not None and hmac.compare_digest(known, self._digest(secret))


class Throttle:
    """A counter of failures by address. ``limit`` is evaluated at each use. A limit of zero disables the throttle."""

    def __init__(
        self,
        name: str,
        *,
        limit: Callable[[], int],
        span: timedelta,
        report_every: int = 1,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._name = name
        self._limit = limit
        self._span = span
        self._report_every = report_every
        """Failures that a process counts by itself before it adds them to the shared count."""
        self._clock = clock
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Clear all counts of this process, for tests."""
        self._unreported: BoundedCache[int] = BoundedCache(REMEMBERED_ADDRESSES)
        self._blocked_until: BoundedCache[float] = BoundedCache(REMEMBERED_ADDRESSES)
        self._good_credentials = _GoodCredentials()

    def blocked_seconds(self, address: str, caller: str = "", secret: str = "") -> float:
        """Return the seconds for which the address is still refused, or 0. It runs no query.

        A caller with a credential that was right from there is let through. So one bad machine cannot lock out others
        behind the same router, whatever name it uses.
        """
        network = network_of(address)
        with self._lock:
            until = self._blocked_until.get(network)
            left = until - self._clock.monotonic_seconds() if until is not None else 0
            if left <= 0 or (caller and self._good_credentials.holds(caller, network, secret)):
                return 0
        return left

    def succeeded(self, address: str, caller: str, secret: str) -> None:
        """Remember that this caller proved itself from there with that secret. No query."""
        with self._lock:
            self._good_credentials.note(caller, network_of(address), secret)

    def failed(self, address: str) -> None:
        """Count a failure, and refuse the address for a while when there were too many."""
        network = network_of(address)
        limit = self._limit()
        # Without an address (a Unix socket and no trusted proxy), all clients would count as one.
        if not network or limit <= 0:
            return
        with self._lock:
            untold = (self._unreported.get(network) or 0) + 1
            if untold < min(self._report_every, limit):
                self._unreported.put(network, untold)
                return
            self._unreported.drop(network)
        try:
            count = self._add_to_shared_count(network, untold, now=self._clock.now())
        except DatabaseError as error:
            # The refusal itself stands. The next failure is counted again.
            _log.error("cannot count bad credentials: %s", " ".join(str(error).split()))
            return
        if count >= limit:
            with self._lock:
                self._blocked_until.put(network, self._clock.monotonic_seconds() + self._span.total_seconds())
            _log.warning(
                "%s sent %d bad credentials (%s) within %s: refused for that long",
                network,
                count,
                self._name,
                self._span,
            )

    def _add_to_shared_count(self, network: str, count: int, *, now: datetime) -> int:
        """Add to the shared count, and return the failures of all processes within the span."""
        bucket = f"{self._name} {network}"
        counts = BadCredentialCount.objects.filter(bucket=bucket)
        current = counts.filter(date_begin__gt=now - self._span)
        old = counts.exclude(date_begin__gt=now - self._span)
        # Each step is a claim that one process wins. The others add to the winner's count.
        while not current.update(count=F("count") + count):
            if (
                old.update(date_begin=now, count=count)
                or counts.get_or_create(bucket=bucket, defaults={"date_begin": now, "count": count})[1]
            ):
                BadCredentialCount.objects.filter(date_begin__lt=now - timedelta(days=1)).delete()
                return count
        return current.values_list("count", flat=True).first() or count


CREDENTIALS = Throttle(
    "credentials",
    limit=lambda: int(settings.TURKU_ENVIRONMENT.bad_credentials_per_minute),
    span=timedelta(minutes=1),
    report_every=5,
)
"""Secrets of machines, storages and registration Auths."""
LOGINS = Throttle("logins", limit=lambda: 10, span=timedelta(minutes=15))
"""Passwords of people."""
