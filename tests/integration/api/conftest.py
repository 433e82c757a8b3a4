"""A coordinator as real processes, on SQLite and on PostgreSQL."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import postgresql
from tests.support.coordinator import Coordinator
from tests.support.postgresql import PostgresqlServer


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """A PostgreSQL server of the session's own."""
    if postgresql.binaries() is None:
        pytest.skip("PostgreSQL is not installed (apt install postgresql)")
    with PostgresqlServer() as server:
        yield server


@pytest.fixture(scope="session", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)], ids=str)
def coordinator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    """A coordinator that all tests of the session share: each brings machines and storages of its own."""
    directory: Path = tmp_path_factory.mktemp(f"coordinator-{request.param}")
    url = None
    if request.param == "postgresql":
        server: PostgresqlServer = request.getfixturevalue("postgresql_server")
        url = server.create_database(f"turku_{os.getpid()}")
    # A test calls from several addresses.
    environment = {"TURKU_TRUSTED_PROXIES": "127.0.0.1"}
    with Coordinator(directory / "state", url, environment=environment) as running:
        yield running
