"""The command `turku-api serve`: the coordinator under gunicorn, after all checks have passed."""

import argparse
import dataclasses
import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connections
from django.db.migrations.executor import MigrationExecutor

from turku.api.commands.setup import configured
from turku.api.configuration import environment
from turku.api.configuration.tls import served
from turku.api.fleet.identity import hash_keys
from turku.core.cli.arguments import count
from turku.core.cli.listing import Say
from turku.core.cli.program import Argument, Command
from turku.core.clock import SYSTEM_CLOCK
from turku.core.log import STANDARD_ERROR, is_journal
from turku.errors import ConfigurationError, UsageError

_MEMORY_DIRECTORY = Path("/dev/shm")  # noqa: S108  (gunicorn makes its heartbeat files there under random names)
_MOST = 1000


def _address(text: str) -> str:
    if environment.is_address(text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is neither HOST:PORT nor unix:/ABSOLUTE/PATH")


def _file(text: str) -> Path:
    return Path(text).absolute()


CONNECTIONS = 1000
"""Connections of a worker. With TLS they are more than those that arrive or are idle may be."""


def options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of gunicorn: limits on client data, and workers that are restarted now and then."""
    return {
        "bind": arguments.bind or settings.TURKU_ENVIRONMENT.bind,
        "workers": arguments.workers or settings.TURKU_ENVIRONMENT.workers,
        "threads": arguments.threads,
        "worker_class": "gthread",
        "worker_connections": CONNECTIONS,
        "timeout": 60,
        "graceful_timeout": 20,
        "keepalive": 15,
        # client_address.py alone decides whether to trust a proxy about the scheme.
        "secure_scheme_headers": {},
        "limit_request_line": 4094,
        "limit_request_fields": 64,
        "limit_request_field_size": 8190,
        "max_requests": 50_000,
        "max_requests_jitter": 5_000,
        "preload_app": True,
        "control_socket_disable": True,
        "worker_tmp_dir": str(_MEMORY_DIRECTORY) if os.access(_MEMORY_DIRECTORY, os.W_OK) else None,
        "accesslog": "-" if arguments.access_log else None,
        "loglevel": "info",
        "proc_name": "turku-api",
        **_journal_options(),
    }


def _journal_options() -> dict[str, Any]:
    if not is_journal(STANDARD_ERROR):
        return {}
    from turku.api.project import serve_log

    return {"logger_class": serve_log.JournalServerLog, "access_log_format": serve_log.ACCESS_FORMAT}


def _tls_options(parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of gunicorn for TLS, or none if a proxy speaks it. Raises ConfigurationError."""
    if (parsed.tls_certificate is None) != (parsed.tls_key is None):
        raise UsageError("--tls-certificate and --tls-key belong together")
    if parsed.tls_certificate is not None:
        # Calls announce the key that is served, and read it from here.
        settings.TURKU_ENVIRONMENT = dataclasses.replace(
            settings.TURKU_ENVIRONMENT, tls_certificate=parsed.tls_certificate, tls_key=parsed.tls_key
        )
    files = served.files()
    if files is None:
        return {}
    from turku.api.configuration.tls.renewal import RenewedContext

    context = RenewedContext(files)
    return {
        "certfile": str(files.certificate),
        "keyfile": str(files.key),
        "ssl_context": lambda _settings, _default: context.current(),
        "worker_class": "turku.api.configuration.tls.worker.TlsWorker",
    }


def run(parsed: argparse.Namespace, _say: Say) -> int:
    """Serve until a signal ends it. Raises ConfigurationError before the first socket is open."""
    from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]  # gunicorn has no types
    from gunicorn.config import KNOWN_SETTINGS  # type: ignore[import-untyped]

    executor = MigrationExecutor(connections["default"])
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise ConfigurationError("the database is not set up for this version", hint="run `turku-api migrate` first")
    gunicorn_options = {**options(parsed), **_tls_options(parsed)}
    from turku.api.project.wsgi import application

    hash_keys.register_newest_key(now=SYSTEM_CLOCK.now())
    # The forked workers must not share a connection.
    connections.close_all()

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            known = {setting.name for setting in KNOWN_SETTINGS}
            for name, value in gunicorn_options.items():
                if name in known and value is not None:
                    self.cfg.set(name, value)

        def load(self) -> Any:
            return application

    Server().run()
    return 0


COMMANDS = (
    Command(
        "serve",
        "Serve the calls of agents and storages, and the admin site, until a signal ends it.",
        configured(run),
        (
            ("Serve behind a reverse proxy on this host:", "{prog}"),
            ("Speak TLS:", "{prog} --tls-certificate chain.pem --tls-key key.pem"),
            ("Serve a large fleet:", "{prog} --workers 8 --threads 8"),
        ),
        (
            Argument(
                "--bind",
                type=_address,
                metavar="ADDRESS",
                help=f"Address to listen on: HOST:PORT or unix:PATH (default: TURKU_BIND, or "
                f"{environment.DEFAULT_BIND}).",
            ),
            Argument(
                "--tls-certificate",
                type=_file,
                metavar="FILE",
                help="Certificate to speak TLS with, then those of its authorities (default: TURKU_TLS_CERTIFICATE).",
            ),
            Argument("--tls-key", type=_file, metavar="FILE", help="Key of the certificate (default: TURKU_TLS_KEY)."),
            Argument(
                "--workers",
                type=count(environment.MOST_WORKERS),
                metavar="N",
                help=f"Worker processes (default: TURKU_WORKERS, or {environment.DEFAULT_WORKERS}).",
            ),
            Argument(
                "--threads",
                type=count(_MOST),
                default=4,
                metavar="N",
                help="Threads of each worker (default: %(default)s).",
            ),
            Argument("--access-log", action="store_true", help="Print a line per request on standard output."),
        ),
    ),
)
