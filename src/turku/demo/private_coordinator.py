"""A private coordinator: the installed `turku-api` on a free loopback port, with its state in one directory."""

import http.client
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Self

from turku.core import command, durable
from turku.core.secret import Secret
from turku.demo import programs


class PrivateCoordinator(programs.LocalServer):
    """A running coordinator with a prepared database. A context manager that ends it with its workers.

    The database is SQLite in ``state_dir``, unless ``database_url`` names another. ``environment`` adds TURKU_*
    variables.
    """

    def __init__(
        self,
        state_dir: Path,
        database_url: str | None = None,
        *,
        workers: int = 2,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.state_dir = state_dir
        self.database_url = database_url
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._workers = workers
        self._environment = {
            "TURKU_STATE_DIR": str(state_dir),
            # With plain HTTP on loopback, a browser would not send secure cookies.
            "TURKU_ALLOW_INSECURE_COOKIES": "1",
            **({"TURKU_DATABASE_URL": database_url} if database_url else {}),
            **(environment or {}),
        }

    def __enter__(self) -> Self:
        durable.make_private_directory(self.state_dir)
        self.manage("migrate", "--verbosity", "0")
        return super().__enter__()

    @property
    def admin_url(self) -> str:
        """Address of the admin site."""
        return f"http://127.0.0.1:{self.port}/admin/"

    def manage(
        self,
        *arguments: str,
        check: bool = True,
        timeout_seconds: float = 120,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Run `turku-api ARGUMENTS` and return its standard output. Raises CommandFailed."""
        completed = command.run(
            [programs.DIRECTORY / "turku-api", *arguments],
            timeout_seconds=timeout_seconds,
            extra_environment={**self._environment, **(environment or {})},
            check=check,
        )
        return completed.stdout.decode()

    def create_auth(self, kind: str, *, name: str | None = None) -> str:
        """Create a registration Auth (``machine_reg`` or ``storage_reg``) and return its secret."""
        named = ("--name", name) if name else ()
        return self.manage("auth-create", kind, "--raw", *named).strip()

    def create_administrator(self, name: str, password: Secret) -> None:
        """Create an account for the admin site."""
        self.manage(
            *("createsuperuser", "--noinput", "--username", name, "--email", ""),
            environment={"DJANGO_SUPERUSER_PASSWORD": password.reveal()},
        )

    def start(self) -> None:
        """Start serving and wait until it answers. Raises CommandFailed."""
        serve = ("serve", "--bind", f"127.0.0.1:{self.port}", "--workers", str(self._workers))
        self._run([programs.DIRECTORY / "turku-api", *serve], self._environment)

    def _answers(self) -> bool:
        # Not by the programs' client, which would use a proxy of the environment.
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("POST", "/v1/health", b"{}", {"Content-Type": "application/json"})
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
