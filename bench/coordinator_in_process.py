"""The real coordinator in this process, on a clock that the caller sets.

Its WSGI application answers calls as it does behind gunicorn, on SQLite or PostgreSQL. Nothing listens anywhere. Only
`core/clock.py` reads the time, and no statement asks the database for it, so that one replaced method moves all of it.
"""

import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from turku.core.clock import SystemClock

BEGIN = datetime(2026, 6, 1, tzinfo=UTC)
"""A Monday at midnight, in a week without clock changes."""


class SimulatedClock:
    """Says what ``seconds`` says, counted from BEGIN."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.seconds)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within the block every reader of the system's clock in this process reads this one."""
        original = SystemClock.now
        SystemClock.now = lambda _clock: self.now()  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            SystemClock.now = original  # type: ignore[method-assign]


def seconds_of(moment: datetime) -> float:
    """The moment in simulated seconds."""
    return (moment - BEGIN).total_seconds()


@dataclass
class CallCost:
    """The cost of each answer to a call, in the order of the calls."""

    processor_seconds: list[float] = field(default_factory=list)
    """Of this process."""
    seconds: list[float] = field(default_factory=list)
    """Elapsed."""


class CallRefused(Exception):
    """The coordinator answered with another status than 200."""

    def __init__(self, call: str, status: int, answer: Any) -> None:
        super().__init__(f"{call}: {status} {answer}")
        self.status = status


class CoordinatorInProcess:
    """The application that answers calls, made once in a process, within ``SimulatedClock.installed``."""

    def __init__(self, state_dir: Path, database_url: str | None, clock: SimulatedClock) -> None:
        state_dir.mkdir(parents=True, exist_ok=True)
        os.environ["TURKU_STATE_DIR"] = str(state_dir)
        os.environ["DJANGO_SETTINGS_MODULE"] = "turku.api.project.settings"
        if database_url:
            os.environ["TURKU_DATABASE_URL"] = database_url
        self.clock = clock
        self.costs: dict[str, CallCost] = {}
        from turku.api.cli import create_files

        create_files()
        from turku.api.project.wsgi import application

        self._application = application

    def set_up(self) -> tuple[str, str]:
        """Create the tables, and return the registration secrets of machines and of storages."""
        from django.core.management import call_command

        from turku.api.fleet.identity import auths, hash_keys
        from turku.api.fleet.models import AuthKind

        call_command("migrate", verbosity=0)
        now = self.clock.now()
        hash_keys.register_newest_key(now=now)
        _auth, machines = auths.create(AuthKind.MACHINE, "machines", now=now)
        _auth, storages = auths.create(AuthKind.STORAGE, "storages", now=now)
        return machines.reveal(), storages.reveal()

    def call(self, name: str, message: Any, *, version: str = "v1", cost: str = "") -> Any:
        """Return the decoded answer, and add its cost to the costs of that name, or of the call. Raises
        CallRefused."""
        body = msgspec.json.encode(message)
        environ = {
            "REQUEST_METHOD": "POST",
            "SCRIPT_NAME": "",
            "PATH_INFO": f"/{version}/{name}",
            "QUERY_STRING": "",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        status: list[str] = []
        begun, taken = time.perf_counter(), time.process_time()
        response = self._application(environ, lambda line, _headers, _error=None: status.append(line))  # type: ignore[arg-type]
        answer = b"".join(response)
        response.close()
        account = self.costs.setdefault(cost or name, CallCost())
        account.processor_seconds.append(time.process_time() - taken)
        account.seconds.append(time.perf_counter() - begun)
        decoded = msgspec.json.decode(answer)
        code = int(status[0].split()[0])
        if code != 200:
            raise CallRefused(name, code, decoded)
        return decoded


@dataclass(frozen=True)
class RowsWritten:
    """Rows inserted, changed and deleted so far."""

    inserted: int
    changed: int
    deleted: int

    def __sub__(self, other: "RowsWritten") -> "RowsWritten":
        return RowsWritten(self.inserted - other.inserted, self.changed - other.changed, self.deleted - other.deleted)

    @property
    def whole(self) -> int:
        return self.inserted + self.changed + self.deleted


def rows_written() -> dict[str, RowsWritten]:
    """Return the rows that each table has written so far, as PostgreSQL counts them, or nothing for SQLite."""
    from django.db import connection

    if connection.vendor != "postgresql":
        return {}
    # A backend tells its figures when it has rested for a second.
    time.sleep(2)
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables")
        return {name: RowsWritten(*counts) for name, *counts in cursor.fetchall()}


@dataclass(frozen=True)
class TableSize:
    """Rows of a table, and the bytes of it and of its indexes."""

    rows: int
    table_bytes: int
    index_bytes: int

    @property
    def bytes_per_row(self) -> float:
        return (self.table_bytes + self.index_bytes) / max(self.rows, 1)


def table_sizes() -> dict[str, TableSize]:
    """Return the present size of every table, or nothing for SQLite."""
    from django.db import connection

    if connection.vendor != "postgresql":
        return {}
    sizes: dict[str, TableSize] = {}
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("SELECT relname, pg_table_size(relid), pg_indexes_size(relid) FROM pg_stat_user_tables")
        for name, table_bytes, index_bytes in cursor.fetchall():
            cursor.execute(f'SELECT count(*) FROM "{name}"')
            sizes[name] = TableSize(cursor.fetchone()[0], table_bytes, index_bytes)
    return sizes
