"""The TURKU_* variables of the environment, read once, with errors collected as data."""

import ipaddress
import re
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from turku.core.secret import Secret
from turku.errors import ConfigurationError
from turku.protocol.client import checked_url

DEFAULT_STATE_DIR = Path("/var/lib/turku-api")
TLS_DIRECTORY = "tls"
SECRET_KEY_LENGTH = 32
"""The shortest secret key in characters."""
DEFAULT_ALLOWED_HOSTS = ("localhost", "127.0.0.1", "[::1]")
DEFAULT_BIND = "127.0.0.1:8000"
DEFAULT_WORKERS = 2
MOST_WORKERS = 1000
_LARGEST_NUMBER = 1_000_000
_VERSION = re.compile(r"\d{1,4}(\.\d{1,4}){0,2}", re.ASCII)
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class SettingError:
    """A setting that cannot be used. It is shown as a Django system check with this id."""

    id: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class DatabaseSettings:
    """The database that holds the data.

    ``engine`` is ``sqlite3`` or ``postgresql``. The other fields are Django's settings of the same name.
    """

    engine: str
    name: str
    user: str = ""
    password: Secret = field(default_factory=lambda: Secret(""))
    host: str = ""
    port: str = ""
    options: tuple[tuple[str, str], ...] = ()

    @property
    def is_shared(self) -> bool:
        """True if coordinators on other hosts may use it too: it is not on a Unix socket or on loopback."""
        is_local = not self.host or self.host.startswith("/") or self.host in ("localhost", "127.0.0.1", "::1")
        return self.engine == "postgresql" and not is_local


@dataclass(frozen=True)
class TrustedProxies:
    """The reverse proxies whose forwarded headers are trusted. ``unix_socket`` trusts every peer of a Unix socket."""

    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    unix_socket: bool = False

    def holds(self, address: str) -> bool:
        """Return True if the peer with this address is trusted. An empty address stands for a Unix socket."""
        if not address:
            return self.unix_socket
        return any(ipaddress.ip_address(address) in network for network in self.networks)


@dataclass(frozen=True)
class Environment:
    """The settings, with a usable value in each field also where the variable is invalid."""

    state_dir: Path
    database: DatabaseSettings
    secret_key: Secret
    secret_key_file: Path
    hash_keys: Secret
    """The text of TURKU_HASH_KEY, one key a line, or empty if the keys are in ``hash_key_file``."""
    hash_key_file: Path
    hash_key_is_local: bool
    """True if neither variable is set, so that this host generated the key itself."""
    url: str
    """The address of the coordinator for agents and storages, without the version, or empty."""
    tls_certificate: Path | None
    """With ``tls_key``: the certificate to serve. None if a proxy speaks TLS."""
    tls_key: Path | None
    allowed_hosts: tuple[str, ...]
    csrf_trusted_origins: tuple[str, ...]
    trusted_proxies: TrustedProxies
    bad_credentials_per_minute: int
    """The number of bad credentials from one address after which it is refused for a minute. 0 means no limit."""
    bind: str
    """The address that ``turku-api serve`` listens on: ``HOST:PORT`` or ``unix:/ABSOLUTE/PATH``."""
    workers: int
    """The number of worker processes of ``turku-api serve``."""
    time_zone: str
    debug: bool
    allow_insecure_cookies: bool
    minimum_version: str = ""
    """The oldest Turku of machines and storages that is not marked, or empty for any."""
    minimum_storage_rsync: str = ""
    errors: tuple[SettingError, ...] = ()

    @property
    def tls_directory(self) -> Path:
        """The directory of keys and certificates that the coordinator makes itself."""
        return self.state_dir / TLS_DIRECTORY

    @property
    def is_public(self) -> bool:
        """True if hosts other than this one may reach the coordinator by an allowed name."""
        return not set(self.allowed_hosts) <= set(DEFAULT_ALLOWED_HOSTS)


class _Reader:
    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = variables
        self.errors: list[SettingError] = []

    def error(self, number: int, message: str, hint: str = "") -> None:
        self.errors.append(SettingError(f"turku.E{number:03}", message, hint))

    def text(self, name: str) -> str:
        return self.variables.get(name, "").strip()

    def flag(self, name: str) -> bool:
        value = self.text(name).lower()
        if value in _TRUE:
            return True
        if value not in _FALSE:
            self.error(1, f"{name} is {value!r}, neither yes nor no.", f"Set {name}=1 or leave it out.")
        return False

    def words(self, name: str) -> tuple[str, ...]:
        return tuple(word.strip() for word in self.text(name).split(",") if word.strip())

    def path(self, name: str, default: Path) -> Path:
        value = self.text(name)
        if not value:
            return default
        path = Path(value)
        if not path.is_absolute():
            self.error(2, f"{name} is {value!r}, not an absolute path.", f"For example {name}={default}.")
            return default
        return path

    def secret(self, name: str) -> Secret:
        if self.text(name) and self.text(f"{name}_FILE"):
            self.error(3, f"Both {name} and {name}_FILE are set.", "Set one of them.")
        return Secret(self.text(name))

    def time_zone(self) -> str:
        name = self.text("TURKU_TIME_ZONE") or "UTC"
        try:
            zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            self.error(
                4,
                f"TURKU_TIME_ZONE is {name!r}, which is not a time zone.",
                "Use a name of the tz database, such as Europe/Helsinki, or UTC.",
            )
            return "UTC"
        return name

    def url(self) -> str:
        text = self.text("TURKU_URL")
        if not text:
            return ""
        try:
            return checked_url(text).removesuffix("/v1")
        except ConfigurationError as error:
            self.error(
                14,
                f"TURKU_URL cannot be used: {error.message.removeprefix('api_url: ')}.",
                "For example TURKU_URL=https://turku.example.com.",
            )
            return ""

    def bind(self) -> str:
        value = self.text("TURKU_BIND") or DEFAULT_BIND
        if not is_address(value):
            self.error(
                15,
                f"TURKU_BIND is {value!r}, neither HOST:PORT nor unix:/ABSOLUTE/PATH.",
                f"For example TURKU_BIND={DEFAULT_BIND}.",
            )
            return DEFAULT_BIND
        return value

    def workers(self) -> int:
        workers = self.number("TURKU_WORKERS", DEFAULT_WORKERS)
        if not 1 <= workers <= MOST_WORKERS:
            self.error(16, f"TURKU_WORKERS is {workers}, not from 1 to {MOST_WORKERS}.", "For example TURKU_WORKERS=4.")
            return DEFAULT_WORKERS
        return workers

    def tls_files(self) -> tuple[Path, Path] | tuple[None, None]:
        names = ("TURKU_TLS_CERTIFICATE", "TURKU_TLS_KEY")
        given = [name for name in names if self.text(name)]
        if len(given) == 1:
            self.error(
                17,
                f"{given[0]} is set without {next(name for name in names if name not in given)}.",
                "Set both, or neither if a proxy speaks TLS.",
            )
        if len(given) < len(names):
            return None, None
        directory = Path("/etc/turku-api")
        return self.path(names[0], directory / "certificate.pem"), self.path(names[1], directory / "key.pem")

    def allowed_hosts(self) -> tuple[str, ...]:
        hosts = self.words("TURKU_ALLOWED_HOSTS") or DEFAULT_ALLOWED_HOSTS
        if "*" in hosts:
            self.error(
                5,
                "TURKU_ALLOWED_HOSTS holds '*': any host name would be believed.",
                "List the names under which machines and people reach this coordinator, separated by commas.",
            )
            hosts = tuple(host for host in hosts if host != "*") or DEFAULT_ALLOWED_HOSTS
        return hosts

    def origins(self) -> tuple[str, ...]:
        origins = self.words("TURKU_CSRF_TRUSTED_ORIGINS")
        for origin in origins:
            if not origin.startswith(("https://", "http://")):
                self.error(
                    6,
                    f"TURKU_CSRF_TRUSTED_ORIGINS holds {origin!r}, which has no scheme.",
                    "For example https://turku.example.com.",
                )
        return tuple(origin for origin in origins if origin.startswith(("https://", "http://")))

    def trusted_proxies(self) -> TrustedProxies:
        networks = []
        words = self.words("TURKU_TRUSTED_PROXIES")
        for word in words:
            if word == "unix":
                continue
            try:
                networks.append(ipaddress.ip_network(word))
            except ValueError as error:
                self.error(
                    12,
                    f"TURKU_TRUSTED_PROXIES holds {word!r}, which is not an address or network: {error}.",
                    "For example 127.0.0.1, 10.1.0.0/16, or unix for a proxy that connects to a Unix socket.",
                )
        return TrustedProxies(tuple(networks), unix_socket="unix" in words)

    def number(self, name: str, default: int) -> int:
        value = self.text(name)
        if not value:
            return default
        if not (value.isascii() and value.isdigit()) or int(value) > _LARGEST_NUMBER:
            self.error(
                13, f"{name} is {value!r}, not a number from 0 to {_LARGEST_NUMBER}.", f"For example {name}={default}."
            )
            return default
        return int(value)

    def version(self, name: str) -> str:
        value = self.text(name)
        if value and not _VERSION.fullmatch(value):
            self.error(18, f"{name} is {value!r}, which is not a version.", f"For example {name}=2.1 or {name}=3.5.0.")
            return ""
        return value

    def database(self, state_dir: Path) -> DatabaseSettings:
        url = self.text("TURKU_DATABASE_URL")
        default = DatabaseSettings("sqlite3", str(state_dir / "db.sqlite3"))
        if not url:
            return default
        try:
            return parse_database_url(url)
        except ValueError as error:
            self.error(
                7,
                f"TURKU_DATABASE_URL cannot be used: {error}.",
                "For example postgresql://turku:PASSWORD@db.example.com/turku, "
                "postgresql:///turku?host=/run/postgresql, or sqlite:///var/lib/turku-api/db.sqlite3.",
            )
            return default


def is_address(text: str) -> bool:
    """Return True for ``HOST:PORT`` and ``unix:/ABSOLUTE/PATH``, on which a server can listen."""
    host, colon, port = text.rpartition(":")
    is_tcp = bool(host and colon) and port.isascii() and port.isdecimal() and int(port) < 65536
    return text.startswith("unix:/") or is_tcp


def parse_database_url(url: str) -> DatabaseSettings:
    """Return the database that the URL names.

    The forms are ``postgresql://USER:PASSWORD@HOST:PORT/NAME?sslmode=...``, ``?host=/run/postgresql`` for a Unix
    socket, and ``sqlite:///ABSOLUTE/PATH``. Raises ValueError, without the password in its text.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("its host or port is malformed") from None
    options = dict(parse_qsl(parts.query))
    if parts.scheme == "sqlite":
        path = "/" + unquote(parts.path).lstrip("/")
        if parts.netloc or path == "/":
            raise ValueError("sqlite takes an absolute path after three slashes")
        return DatabaseSettings("sqlite3", path)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError(f"{parts.scheme or 'a missing scheme'!r} is neither 'postgresql' nor 'sqlite'")
    name = unquote(parts.path).lstrip("/")
    if not name:
        raise ValueError("it does not name a database after the host")
    return DatabaseSettings(
        "postgresql",
        name,
        user=unquote(parts.username or "") or options.pop("user", ""),
        password=Secret(unquote(parts.password or "")),
        host=options.pop("host", "") or unquote(parts.hostname or ""),
        port=str(port or options.pop("port", "")),
        options=tuple(options.items()),
    )


def read(variables: Mapping[str, str]) -> Environment:
    """Read the settings from ``variables``. It never raises. Errors are in the ``errors`` field."""
    reader = _Reader(variables)
    state_dir = reader.path("TURKU_STATE_DIR", DEFAULT_STATE_DIR)
    hash_keys = reader.secret("TURKU_HASH_KEY")
    tls_certificate, tls_key = reader.tls_files()
    environment = Environment(
        state_dir=state_dir,
        database=reader.database(state_dir),
        secret_key=reader.secret("TURKU_SECRET_KEY"),
        secret_key_file=reader.path("TURKU_SECRET_KEY_FILE", state_dir / "secret_key"),
        hash_keys=hash_keys,
        hash_key_file=reader.path("TURKU_HASH_KEY_FILE", state_dir / "hash_key"),
        hash_key_is_local=not hash_keys and not reader.text("TURKU_HASH_KEY_FILE"),
        url=reader.url(),
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        allowed_hosts=reader.allowed_hosts(),
        csrf_trusted_origins=reader.origins(),
        trusted_proxies=reader.trusted_proxies(),
        bad_credentials_per_minute=reader.number("TURKU_BAD_CREDENTIALS_PER_MINUTE", 30),
        bind=reader.bind(),
        workers=reader.workers(),
        time_zone=reader.time_zone(),
        debug=reader.flag("TURKU_DEBUG"),
        allow_insecure_cookies=reader.flag("TURKU_ALLOW_INSECURE_COOKIES"),
        minimum_version=reader.version("TURKU_MINIMUM_VERSION"),
        minimum_storage_rsync=reader.version("TURKU_MINIMUM_STORAGE_RSYNC"),
    )
    if environment.debug and environment.is_public:
        reader.error(
            8,
            "TURKU_DEBUG is on while TURKU_ALLOWED_HOSTS holds more than loopback names.",
            "Error pages of the debug mode show settings and data: use it on loopback only.",
        )
    if environment.secret_key and len(environment.secret_key.reveal()) < SECRET_KEY_LENGTH:
        reader.error(9, "TURKU_SECRET_KEY is shorter than 32 characters.", "Leave it out: a good one is generated.")
    return Environment(**{**environment.__dict__, "errors": tuple(reader.errors)})
