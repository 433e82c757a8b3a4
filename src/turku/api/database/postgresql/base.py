"""The database wrapper, under the name that Django looks for."""

import select
from typing import Any

from django.db.backends.postgresql import base

from turku.core.clock import SYSTEM_CLOCK

_REST_SECONDS = 5.0
"""A connection that was idle for longer is tested. A firewall may have dropped it silently."""


class DatabaseWrapper(base.DatabaseWrapper):
    """A wrapper that skips the test of a connection in constant use, which costs a round trip for each request."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._worked_at: float | None = None

    def is_usable(self) -> bool:
        """Return True if the connection works.

        After recent use, the socket alone is checked. A server that ends or restarts closes the socket, which becomes
        readable. Otherwise nothing can be read between two requests.
        """
        now = SYSTEM_CLOCK.monotonic_seconds()
        is_rested = self._worked_at is None or now - self._worked_at > _REST_SECONDS
        usable = super().is_usable() if is_rested or self._has_something_to_say() else True
        self._worked_at = now if usable else None
        return usable

    def connect(self) -> None:
        self._worked_at = None
        super().connect()

    def _has_something_to_say(self) -> bool:
        if self.connection is None or self.connection.closed:
            return True
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        return bool(poll.poll(0))
