"""A private coordinator (the demo's), with what a test needs to talk to it.

    with Coordinator(state_dir, database_url=None) as coordinator:
        coordinator.url                         'http://127.0.0.1:PORT/v1'
        coordinator.port                        the PORT
        coordinator.create_auth("machine_reg")  a registration secret (nameless); create_auth(kind, name="x") names it
        coordinator.manage("clean-logs", ...)   what `turku-api ARGUMENTS` printed; raises CommandFailed on a failure
        coordinator.call("health", {})          a requests.Response of a POST of JSON
        coordinator.last_lines                  what the server printed last
        coordinator.stop(); coordinator.start() a restart on the same port

``state_dir`` is made; the database is SQLite in it unless ``database_url`` says otherwise; ``environment`` adds
TURKU_* variables. Ended with the block, workers included.
"""

from __future__ import annotations

from typing import Any

import requests

from turku.demo.private_coordinator import PrivateCoordinator
from turku.demo.programs import DIRECTORY as PROGRAMS
from turku.demo.programs import free_port

__all__ = ["PROGRAMS", "Coordinator", "free_port"]


class Coordinator(PrivateCoordinator):
    """A running coordinator; a context manager."""

    def call(self, name: str, message: Any, *, timeout_seconds: float = 30) -> requests.Response:
        """The answer to one call."""
        return requests.post(f"{self.url}/{name}", json=message, timeout=timeout_seconds)
