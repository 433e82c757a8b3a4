"""Coordinators of one database with the same keys, as behind a load balancer.

with racing_coordinators(postgresql_server, directory, "racing", environment={...}) as coordinators:
    coordinators[0].create_auth("machine_reg")
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.coordinator import Coordinator
from tests.support.postgresql import PostgresqlServer

COORDINATORS = 3


@contextmanager
def racing_coordinators(
    server: PostgresqlServer, directory: Path, name: str, *, environment: Mapping[str, str] | None = None
) -> Iterator[list[Coordinator]]:
    """Yield the coordinators, each with one worker. The database's name begins with ``name``."""
    url = server.create_database(f"{name}_{os.getpid()}")
    keys = {
        "TURKU_HASH_KEY_FILE": str(directory / "hash_key"),
        "TURKU_SECRET_KEY_FILE": str(directory / "secret_key"),
        **(environment or {}),
    }
    with ExitStack() as stack:
        yield [
            stack.enter_context(Coordinator(directory / str(number), url, workers=1, environment=keys))
            for number in range(COORDINATORS)
        ]
