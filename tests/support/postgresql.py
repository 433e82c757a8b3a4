"""A PostgreSQL server of the tests' own: private directory, Unix socket only, ended with the block.

``with PostgresqlServer() as server: server.create_database("name")`` gives a TURKU_DATABASE_URL.
``PostgresqlServer(durable=True)`` writes as a server in use does. Without it a crash may lose the database. As root the
server runs as the user ``postgres``, because it refuses to run as root.
"""

import os
import pwd
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from turku.core import command
from turku.errors import CommandFailed

_START_TIMEOUT_SECONDS = 60.0


def binaries() -> Path | None:
    """The newest installed PostgreSQL's directory of programs, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class PostgresqlServer:
    """A running server, as a context manager."""

    def __init__(self, *, durable: bool = False) -> None:
        self._options = () if durable else ("-c", "fsync=off", "-c", "full_page_writes=off")
        directory = binaries()
        if directory is None:
            raise CommandFailed("PostgreSQL is not installed", hint="apt install postgresql")
        self._binaries = directory
        self._stack = ExitStack()
        self.directory = Path()
        self.user = pwd.getpwuid(os.getuid()).pw_name

    def __enter__(self) -> "PostgresqlServer":
        with ExitStack() as stack:
            # A socket's path may be 107 bytes long: pytest's directories are too deep.
            self.directory = Path(tempfile.mkdtemp(prefix="turku-pg-"))
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            if os.geteuid() == 0:
                self.user = "postgres"
                account = pwd.getpwnam(self.user)
                os.chown(self.directory, account.pw_uid, account.pw_gid)
            data = self.directory / "data"
            self._run("initdb", "--pgdata", data, "--auth", "trust", "--username", self.user, "--no-sync", "-E", "UTF8")
            stack.enter_context(
                command.start(
                    self._as_user(
                        self._binaries / "postgres",
                        *("-D", data, "-k", self.directory, "-h", ""),
                        *(*self._options, "-c", "max_connections=60"),
                    ),
                    working_directory=self.directory,
                )
            )
            self._wait()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """The URL of a new database, empty or a copy of another one that nobody is connected to."""
        self._run("createdb", "-h", self.directory, "-U", self.user, "-T", template, name)
        return f"postgresql://{self.user}@/{name}?host={self.directory}"

    def _as_user(self, *argv: str | Path) -> list[str | bytes | Path]:
        if os.geteuid() == 0:
            # A change of user forgets that the server is to end with us: it is said again.
            ending = ("--pdeathsig", "INT")
            return ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", *ending, *argv]
        return list(argv)

    def _run(self, program: str, *argv: str | Path) -> None:
        command.run(
            self._as_user(self._binaries / program, *argv), timeout_seconds=60, working_directory=self.directory
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while True:
            try:
                self._run("pg_isready", "-h", self.directory, "-U", self.user)
            except CommandFailed:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return
