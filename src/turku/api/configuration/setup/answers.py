"""The answers that ``turku-api setup`` needs: from options, from an earlier setup, from a person, or by default."""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

from turku.api.configuration import environment
from turku.api.configuration.tls import creation
from turku.core import durable
from turku.core.cli import person
from turku.core.secret import Secret
from turku.core.setup.host import Host
from turku.errors import ConfigurationError, UsageError

PORT: Final = 443
OTHER_PORT: Final = 8443
PROXY_PORT: Final = 8000
PASSWORD_VARIABLE: Final = "TURKU_DATABASE_PASSWORD"  # noqa: S105  (a name)
_SQLITE: Final = "sqlite"
_PASSWORD_LIMIT_BYTES: Final = 4096
Ask = Callable[[str, str], str]


class TlsWay(StrEnum):
    """The way in which the coordinator speaks TLS."""

    OWN = "own"
    """With a certificate that is made now, which machines and storages recognize by its key."""
    FILES = "files"
    """With a given certificate and key."""
    PROXY = "proxy"
    """Not at all: a web server in front of it does."""


@dataclass(frozen=True)
class Given:
    """The options of the command line. None is an option that was not given."""

    host_names: tuple[str, ...] = ()
    url: str | None = None
    time_zone: str | None = None
    database: str | None = None
    database_password_file: Path | None = None
    tls: TlsWay | None = None
    certificate: Path | None = None
    key: Path | None = None
    port: int | None = None


@dataclass(frozen=True)
class Answers:
    """The settings of the coordinator as people think of them."""

    host_names: tuple[str, ...]
    url: str
    time_zone: str
    database_url: Secret
    """Empty for SQLite in the state directory."""
    tls: TlsWay
    certificate: Path
    key: Path
    bind: str

    def variables(self) -> dict[str, str]:
        """Return the answers as TURKU_* variables."""
        found = {
            "TURKU_URL": self.url,
            "TURKU_ALLOWED_HOSTS": ",".join(self.host_names),
            "TURKU_TIME_ZONE": self.time_zone,
            "TURKU_BIND": self.bind,
        }
        if self.database_url:
            found["TURKU_DATABASE_URL"] = self.database_url.reveal()
        if self.tls is TlsWay.PROXY:
            found["TURKU_TRUSTED_PROXIES"] = "127.0.0.1,::1"
        else:
            found |= {"TURKU_TLS_CERTIFICATE": str(self.certificate), "TURKU_TLS_KEY": str(self.key)}
        return found


def find(given: Given, earlier: Mapping[str, str], host: Host, *, asks: bool) -> Answers:
    """Return the answers. ``earlier`` are the variables of an earlier setup, which count where no option was given.

    With ``asks``, a person is asked for what neither says. Raises UsageError, ConfigurationError.
    """
    ask: Ask = person.text if asks and not earlier else lambda _question, default: default
    names = given.host_names or _words(earlier.get("TURKU_ALLOWED_HOSTS", "")) or _ask_names(ask)
    zone = given.time_zone or earlier.get("TURKU_TIME_ZONE")
    zone = zone or ask("Time zone of schedules and site", system_zone(host))
    database = _database(given, earlier, ask, asks=asks)
    tls = _tls(given, earlier, ask)
    certificate, key = _certificate(given, earlier, tls, ask)
    had_proxy = "TURKU_TLS_CERTIFICATE" not in earlier
    keeps_port = bool(earlier) and given.port is None and had_proxy == (tls is TlsWay.PROXY)
    bind = earlier.get("TURKU_BIND") if keeps_port else None
    bind = bind or _bind(given.port, tls)
    keeps_url = keeps_port and not given.host_names
    url = given.url or (earlier.get("TURKU_URL") if keeps_url else None) or _url(names[0], bind, tls)
    answers = Answers(names, url, zone, database, tls, certificate, key, bind)
    errors = environment.read(answers.variables()).errors
    if errors:
        raise UsageError(errors[0].message, hint=errors[0].hint)
    return answers


def system_zone(host: Host) -> str:
    """Return the name of the system's time zone, or UTC."""
    try:
        _before, found, name = str(host.path("/etc/localtime").readlink()).partition("zoneinfo/")
    except OSError:
        return "UTC"
    return name if found and name not in ("Etc/UTC", "UCT", "Zulu") else "UTC"


def is_free(port: int) -> bool:
    """Return True if nobody listens on this TCP port."""
    try:
        family = _family()
        with socket.create_server((_any_address(), port), family=family, dualstack_ipv6=family == socket.AF_INET6):
            return True
    except OSError:
        return False


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _ask_names(ask: Ask) -> tuple[str, ...]:
    names = _words(ask("Name by which machines, storages and people reach this host", socket.getfqdn()))
    if not names or names[0] in ("localhost", "localhost.localdomain"):
        raise UsageError("this host does not know its own name", hint="--host-name turku.example.com")
    return names


def _database(given: Given, earlier: Mapping[str, str], ask: Ask, *, asks: bool) -> Secret:
    url = given.database
    if url is None and earlier:
        return Secret(earlier.get("TURKU_DATABASE_URL", ""))
    if url is None:
        url = ask("Database, 'sqlite' or postgresql://USER@HOST/NAME", _SQLITE)
    if url == _SQLITE:
        return Secret("")
    try:
        found = environment.parse_database_url(url)
    except ValueError as error:
        raise UsageError(
            f"--database: {error}", hint="--database postgresql://turku@db.example.com/turku?sslmode=verify-full"
        ) from None
    if found.password:
        raise UsageError(
            "--database must not hold a password: other users can see a command line",
            hint="--database-password-file FILE, or answer the question for it",
        )
    password = _database_password(given, earlier, url, asks=asks and bool(found.host) and found.host[:1] != "/")
    return Secret(_with_password(url, password))


def _database_password(given: Given, earlier: Mapping[str, str], url: str, *, asks: bool) -> Secret:
    if given.database_password_file is not None:
        try:
            content = given.database_password_file.read_bytes()[:_PASSWORD_LIMIT_BYTES]
            return Secret(content.decode().partition("\n")[0].rstrip("\r"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{given.database_password_file}: cannot be read: {error}") from error
    if PASSWORD_VARIABLE in os.environ:
        return Secret(os.environ[PASSWORD_VARIABLE])
    before = Secret(earlier.get("TURKU_DATABASE_URL", ""))
    if before and _with_password(url, Secret("")) == _without_password(before.reveal()):
        return environment.parse_database_url(before.reveal()).password
    return person.secret("Password of the database user (empty for none)") if asks else Secret("")


def _with_password(url: str, password: Secret) -> str:
    if not password:
        return url
    parts = urlsplit(url)
    user, _, address = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password.reveal(), safe='')}@{address}"))


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    user, found, address = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}{found}{address}"))


def _tls(given: Given, earlier: Mapping[str, str], ask: Ask) -> TlsWay:
    if given.tls is not None:
        return given.tls
    if given.certificate is not None or given.key is not None:
        return TlsWay.FILES
    if earlier:
        has_own = earlier.get("TURKU_TLS_CERTIFICATE", "") == str(own_certificate()[0])
        return TlsWay.OWN if has_own else TlsWay.FILES if "TURKU_TLS_CERTIFICATE" in earlier else TlsWay.PROXY
    answer = ask("TLS with its 'own' certificate, with given 'files', or by a 'proxy' in front", TlsWay.OWN)
    try:
        return TlsWay(answer)
    except ValueError:
        raise UsageError(f"TLS: {answer!r} is none of own, files, proxy") from None


def own_certificate() -> tuple[Path, Path]:
    """Return the paths of the certificate and the key that ``turku-api tls create`` makes."""
    directory = environment.DEFAULT_STATE_DIR / environment.TLS_DIRECTORY
    return directory / creation.CERTIFICATE_FILE, directory / creation.KEY_FILE


def _certificate(given: Given, earlier: Mapping[str, str], tls: TlsWay, ask: Ask) -> tuple[Path, Path]:
    if tls is not TlsWay.FILES:
        return own_certificate()
    certificate = given.certificate or Path(earlier.get("TURKU_TLS_CERTIFICATE") or ask("File of the certificate", ""))
    key = given.key or Path(earlier.get("TURKU_TLS_KEY") or ask("File of its key", ""))
    for name, path in (("certificate", certificate), ("key", key)):
        if not path.is_absolute():
            raise UsageError(
                f"--tls-{name} must be the absolute path of a file",
                hint="--tls-certificate /etc/ssl/turku.pem --tls-key /etc/ssl/private/turku.pem",
            )
        try:
            durable.read_regular_file(path.resolve(), limit_bytes=1)
        except OSError as error:
            raise UsageError(f"--tls-{name} {path} cannot be read: {error.strerror}") from error
    return certificate, key


def _bind(port: int | None, tls: TlsWay) -> str:
    if tls is TlsWay.PROXY:
        return f"127.0.0.1:{port or PROXY_PORT}"
    # Port 443, because firewalls let machines out to it and nobody has to type a port. The unit may open it.
    if port is None:
        port = PORT if is_free(PORT) else OTHER_PORT
    address = _any_address()
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _family() -> socket.AddressFamily:
    return socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET


def _any_address() -> str:
    return "::" if _family() == socket.AF_INET6 else "0.0.0.0"  # noqa: S104  (it serves a fleet)


def _url(name: str, bind: str, tls: TlsWay) -> str:
    port = bind.rpartition(":")[2]
    host = f"[{name}]" if ":" in name and not name.startswith("[") else name
    return f"https://{host}" if tls is TlsWay.PROXY or port == str(PORT) else f"https://{host}:{port}"
