"""A private coordinator (the demo's), with what a test needs to talk to it.

    with Coordinator(state_dir, database_url=None) as coordinator:
        coordinator.url                         'http://127.0.0.1:PORT/v1'
        coordinator.port                        the PORT
        coordinator.create_auth("machine_reg")  a registration secret, named by create_auth(kind, name="x")
        coordinator.manage("clean-logs", ...)   the output of `turku-api ARGUMENTS`, or CommandFailed on a failure
        coordinator.call("health", {})          a requests.Response of a POST of JSON
        coordinator.post("health", {})          (200, {...}): for v1_client
        coordinator.sql("SELECT ... ?", value)  dictionaries: the rows of a statement in its database
        coordinator.key(uuid)                   the UUID as that database holds it
        coordinator.last_lines                  the last output of the server
        coordinator.stop(), coordinator.start() a restart on the same port

``state_dir`` is made. The database is SQLite in it unless ``database_url`` says otherwise. ``environment`` adds TURKU_*
variables. Ended with the block, workers included. A new SQLite database is a copy of one that was migrated once:
migrating takes longer than most tests.
"""

import atexit
import shutil
import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, Self

import requests

from turku.api.configuration import key_file
from turku.core import durable
from turku.demo.private_coordinator import PrivateCoordinator
from turku.demo.programs import DIRECTORY as PROGRAMS
from turku.demo.programs import free_port

__all__ = ["PROGRAMS", "Coordinator", "free_port"]


_DATABASE = "db.sqlite3"


class Coordinator(PrivateCoordinator):
    """A running coordinator, as a context manager."""

    def __enter__(self) -> Self:
        database = self.state_dir / _DATABASE
        if self.database_url or database.exists():
            return super().__enter__()
        durable.make_private_directory(self.state_dir)
        shutil.copyfile(_migrated(), database)
        database.chmod(0o600)
        key_file.generate_if_missing(self.state_dir / "secret_key")
        key_file.generate_if_missing(self.state_dir / "hash_key")
        self.start()
        return self

    def call(self, name: str, message: Any, *, timeout_seconds: float = 30) -> requests.Response:
        """The answer to one call."""
        return requests.post(f"{self.url}/{name}", json=message, timeout=timeout_seconds)

    def post(self, name: str, message: Any) -> tuple[int, Any]:
        """Status and decoded answer of one call, as v1_client asks for them."""
        response = self.call(name, message)
        return response.status_code, response.json()

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """The rows of a statement, which may change the database: what an operator does who has no other way."""
        if self.database_url:
            import psycopg

            with psycopg.connect(self.database_url) as connection:
                return _rows(connection.execute(statement.replace("?", "%s"), values))
        with closing(sqlite3.connect(self.state_dir / _DATABASE, timeout=30)) as database, database:
            return _rows(database.execute(statement, values))

    def deactivate_unassigned_machines(self) -> None:
        """Keep the machines that earlier tests left without a storage from the storage that registers next."""
        self.sql("UPDATE fleet_machine SET active = ? WHERE storage_id IS NULL", False)

    def key(self, uuid: str) -> str:
        """The UUID as ``sql`` has it."""
        return uuid if self.database_url else uuid.replace("-", "")


@cache
def _migrated() -> Path:
    """An empty database with all its tables."""
    with tempfile.TemporaryDirectory(prefix="turku-migrated-") as directory:
        coordinator = PrivateCoordinator(Path(directory) / "state")
        durable.make_private_directory(coordinator.state_dir)
        coordinator.manage("migrate", "--verbosity", "0")
        copy = Path(tempfile.mkstemp(prefix="turku-migrated-", suffix=".sqlite3")[1])
        atexit.register(copy.unlink, missing_ok=True)
        # Whole in one file, whatever still is in the write-ahead log.
        with (
            closing(sqlite3.connect(coordinator.state_dir / _DATABASE)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode=WAL")
    return copy


def _rows(cursor: Any) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in (cursor.fetchall() if names else ())]
