"""The backend's wrapper, by the name that Django looks for."""

from __future__ import annotations

import select
from typing import Any

from django.db.backends.postgresql import base

from turku.core.clock import SYSTEM_CLOCK

_REST_SECONDS = 5.0
"""A connection at rest for longer is asked: a firewall may have forgotten it without telling either end."""


class DatabaseWrapper(base.DatabaseWrapper):
    """Asks a connection in constant use nothing: Django would ask it before each request, which costs a round trip."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._worked_at: float | None = None

    def is_usable(self) -> bool:
        """Whether the connection works: from the socket alone where it worked a moment ago.

        A server that ends or restarts closes the socket, which then has something to be read; between two requests
        it has nothing to say otherwise.
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
