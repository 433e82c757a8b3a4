"""The HTTP client of agent and storage: one POST of JSON for each call, with typed and bounded answers.

It uses the standard library's http.client. Importing a larger client takes longer than a whole checkin with nothing
due, and every machine of a fleet would pay for it every five minutes.
"""

import http.client
import ipaddress
import os
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from turku import __version__
from turku.core.log import one_line
from turku.errors import (
    ApiForbidden,
    ApiNotFound,
    ApiRefused,
    ApiRejected,
    ApiRemoved,
    ApiThrottled,
    ApiUnreachable,
    ConfigurationError,
    InvalidValue,
    MalformedMessage,
)
from turku.protocol import certificate, codec

T = TypeVar("T")

ANSWER_LIMIT_BYTES = 256 * 1024 * 1024
"""The answer to a storage with 30,000 machines names each of them in about 400 bytes. This leaves room to grow."""
_REASON_LIMIT_CHARACTERS = 2000
_CONNECT_TIMEOUT_SECONDS = 20.0
_READ_TIMEOUT_SECONDS = 120.0
_ANSWER_TIMEOUT_SECONDS = 600.0
_CHUNK_BYTES = 256 * 1024
_VERSION_HINT = "does api_url end with the version, as in https://turku.example.com/v1?"
_REFUSALS: dict[int, tuple[type[ApiRefused], str]] = {
    400: (ApiRejected, ""),
    403: (ApiForbidden, "check the secrets in the configuration"),
    404: (ApiNotFound, _VERSION_HINT),
    405: (ApiRefused, _VERSION_HINT),
    429: (ApiThrottled, ""),
}
"""The error and hint for each status of a refusal. Any other 4xx may be a proxy's."""


def checked_url(url: str, *, allow_plain_http: bool = False) -> str:
    """Return the URL without its last slash. Plain http is only allowed to loopback (threats N1), or if configured.

    Raises ConfigurationError.
    """
    example = "for example https://turku.example.com/v1"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or any(character <= " " or character == "\x7f" for character in url):
        raise ConfigurationError(f"api_url: {url!r} is not an http(s) address", hint=example)
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError("api_url: must not hold a user name or password")
    if parts.query or parts.fragment:
        raise ConfigurationError(f"api_url: {url!r} must end with its path", hint=example)
    if parts.scheme == "http" and not allow_plain_http and not _is_loopback(parts.hostname or ""):
        raise ConfigurationError(
            f"api_url: {url!r} would send secrets in the clear",
            hint='use https://, or set "allow_plain_http": true where the network itself is trusted',
        )
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ApiClient:
    """A client of one coordinator. Each call has its own connection, because calls can lie hours apart."""

    def __init__(self, url: str, *, allow_plain_http: bool = False, accepted_keys: Sequence[str] = ()) -> None:
        """Make a client. ``accepted_keys`` are fingerprints of keys, one of which the server must show.

        Without them, the server's certificate is verified by the authorities of the system.
        """
        self._url = checked_url(url, allow_plain_http=allow_plain_http)
        self._accepted_keys = tuple(accepted_keys)
        self._parts = urlsplit(self._url)
        self._tls: ssl.SSLContext | None = None
        self.their_time: datetime | None = None
        """Time of the last answer by the clock of the coordinator, or of the proxy that answered for it."""
        self.seen_key = ""
        """Fingerprint of the key of the last answer, if it was one of the accepted keys."""

    def beyond_contract(self) -> "ApiClient":
        """Return a client of the coordinator's calls beyond the contract, at ``/v2`` beside ``/v1``.

        A coordinator of the existing system answers them with 404 (ApiNotFound).
        """
        url = f"{self._url.removesuffix('/v1')}/v2"
        return ApiClient(url, allow_plain_http=True, accepted_keys=self._accepted_keys)

    def call(self, name: str, message: Any, answer: type[T]) -> T:
        """Send ``message`` to the coordinator and return its answer, decoded as ``answer``.

        Raises a branch of ApiRefused (4xx), or ApiUnreachable (network, TLS, time-out, 5xx, a malformed answer).
        """
        address = f"{self._url}/{name}"
        body = codec.encode(message)
        try:
            status, reason, content = self._post(name, body)
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise ApiUnreachable(f"{address}: {_sentence(error)}", hint=_hint(error)) from error
        reason = one_line(reason)[:200]
        if status == 200:
            if content is None:
                raise ApiUnreachable(f"{address}: the answer is larger than {ANSWER_LIMIT_BYTES} bytes")
            try:
                return codec.decode(content, answer, limit_bytes=ANSWER_LIMIT_BYTES)
            except MalformedMessage as error:
                raise ApiUnreachable(
                    f"{address}: the answer is not the contract's: {error}", hint=_VERSION_HINT
                ) from error
        details = (content or b"")[: 4 * _REASON_LIMIT_CHARACTERS].decode("utf-8", "replace").strip()
        if details.startswith("<"):
            # A page for people, of a proxy, or of the coordinator for an unknown address.
            details = ""
        details = "\n".join(one_line(line) for line in details[:_REASON_LIMIT_CHARACTERS].splitlines())
        if 400 <= status < 500:
            kind, hint = _REFUSALS.get(status, (ApiRefused, ""))
            if kind is ApiForbidden and (reason_given := _removal(content)):
                raise ApiRemoved(reason_given)
            raise kind(f"{address}: refused with {status} {reason}", details=details, hint=hint)
        raise ApiUnreachable(f"{address}: answered {status} {reason}", details=details[:300])

    def _post(self, name: str, body: bytes) -> tuple[int, str, bytes | None]:
        connection, target, headers = self._connection(f"{self._parts.path}/{name}")
        try:
            connection.connect()
            connection.sock.settimeout(_READ_TIMEOUT_SECONDS)
            if self._accepted_keys:
                # Before the first byte of the message.
                self._require_accepted_key(connection.sock)
            connection.request("POST", target, body=body, headers=headers)
            response = connection.getresponse()
            self.their_time = _date(response.getheader("Date"))
            return response.status, response.reason, _bounded_body(response)
        finally:
            connection.close()

    def _require_accepted_key(self, connection: socket.socket) -> None:
        """Raise ApiUnreachable unless the peer showed one of the accepted keys. TLS has proved that the key is its own.

        Raises ApiUnreachable for a connection without TLS, too.
        """
        self.seen_key = ""
        der = connection.getpeercert(binary_form=True) if isinstance(connection, ssl.SSLSocket) else None
        try:
            seen = certificate.parse(der or b"").key_fingerprint
        except InvalidValue as error:
            seen = f"none ({error.message})"
        if seen not in self._accepted_keys:
            pinned = " or ".join(self._accepted_keys)
            raise ApiUnreachable(
                f"{self._url}: the key of its certificate is {seen}, and only {pinned} is accepted",
                hint="does `turku-api tls show` on the coordinator show the key that was seen? Then put it into "
                "api_key_fingerprints. Otherwise somebody answers in its place (docs/howto/reverse-proxy.md)",
            )
        self.seen_key = seen

    def _connection(self, path: str) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
        """Return an unopened connection, the request target, and the headers."""
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": f"turku/{__version__}",
            "Connection": "close",
        }
        secure = self._parts.scheme == "https"
        host, port = self._parts.hostname or "", self._parts.port or (443 if secure else 80)
        proxy = _proxy_for(self._parts)
        to_host, to_port = (host, port) if proxy is None else (proxy.hostname or "", proxy.port or 80)
        if secure:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                to_host, to_port, timeout=_CONNECT_TIMEOUT_SECONDS, context=self._tls_context()
            )
        else:
            connection = http.client.HTTPConnection(to_host, to_port, timeout=_CONNECT_TIMEOUT_SECONDS)
        if proxy is None:
            return connection, path, headers
        authorization = _proxy_authorization(proxy)
        if secure:
            connection.set_tunnel(host, port, authorization)
            return connection, path, headers
        # To a proxy, the target is the whole address. http.client takes Host from it.
        return connection, f"http://{self._parts.netloc}{path}", headers | authorization

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            if self._accepted_keys:
                self._tls = _context_without_authorities()
                return self._tls
            # The system's authorities (or SSL_CERT_FILE). Existing installations set REQUESTS_CA_BUNDLE.
            bundle = os.environ.get("REQUESTS_CA_BUNDLE") or None
            is_directory = bundle is not None and Path(bundle).is_dir()
            try:
                self._tls = ssl.create_default_context(
                    cafile=None if is_directory else bundle, capath=bundle if is_directory else None
                )
            except OSError as error:
                raise ApiUnreachable(
                    f"no certificate authorities can be read from {bundle or 'the system'}: {error}",
                    hint="REQUESTS_CA_BUNDLE and SSL_CERT_FILE name files of certificates",
                ) from error
            # Python 3.13 refuses authorities whose certificates lack extensions that RFC 5280 demands, as those made by
            # plain `openssl req -x509` do. They are safe, and curl and every browser take them.
            self._tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return self._tls


def _context_without_authorities() -> ssl.SSLContext:
    """Return a context for a server that is recognized by its key. Nothing else in its certificate counts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class _RefusalOfRemoved(msgspec.Struct, frozen=True):
    error: str
    removed: bool


def _removal(content: bytes | None) -> str:
    """Return the coordinator's sentence about a removed machine or storage, or an empty text for another refusal."""
    try:
        found = msgspec.json.decode(content or b"", type=_RefusalOfRemoved)
    except (msgspec.MsgspecError, UnicodeError):
        return ""
    return one_line(found.error)[:_REASON_LIMIT_CHARACTERS] if found.removed else ""


def _date(header: str | None) -> datetime | None:
    """Return the moment of an HTTP date, or None if it is not valid."""
    try:
        moment = None if header is None else parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    return moment if moment is not None and moment.tzinfo is not None else None


def _bounded_body(response: http.client.HTTPResponse) -> bytes | None:
    """Return the whole body, or None if it is larger than the limit. Raises TimeoutError if it does not end."""
    deadline = time.monotonic() + _ANSWER_TIMEOUT_SECONDS
    body = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):
        body += chunk
        if len(body) > ANSWER_LIMIT_BYTES:
            return None
        if time.monotonic() > deadline:
            raise TimeoutError(f"the answer did not end within {_ANSWER_TIMEOUT_SECONDS:g} s")
    if response.length:
        raise http.client.IncompleteRead(bytes(body[:64]), response.length)
    return bytes(body)


def _proxy_for(parts: SplitResult) -> SplitResult | None:
    """Return the proxy that the environment names for this address (``https_proxy``, ``all_proxy``, ``no_proxy``, ...).

    Calls to loopback never use a proxy: plain http is allowed there because it does not leave the machine.
    """
    host = parts.hostname or ""
    if _is_loopback(host) or not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies_environment, proxy_bypass

    if proxy_bypass(host):
        return None
    proxies = getproxies_environment()
    text = proxies.get(parts.scheme) or proxies.get("all")
    if not text:
        return None
    try:
        proxy = urlsplit(text if "://" in text else f"http://{text}")
        usable = proxy.scheme == "http" and bool(proxy.hostname) and proxy.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ApiUnreachable(
            f"the proxy that the environment names for {parts.scheme} is not of the form http://HOST:PORT",
            hint=f"fix {parts.scheme}_proxy, or exempt {host} by no_proxy",
        )
    return proxy


def _proxy_authorization(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def _hint(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            "is api_url the name in the certificate, and is this clock right? An authority of your own belongs into "
            "the system's store, or SSL_CERT_FILE names its file (docs/howto/reverse-proxy.md)"
        )
    if isinstance(error, ssl.SSLError):
        return "does api_url name the port at which the coordinator's web server speaks TLS?"
    return "is the coordinator running, and reachable from here?"


def _sentence(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its TLS certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"no TLS connection: {error.reason.replace('_', ' ').lower()}"
    text = one_line(str(error))
    if isinstance(error, http.client.RemoteDisconnected):
        text = "closed the connection without an answer"
    elif isinstance(error, http.client.IncompleteRead):
        text = "closed the connection before the end of its answer"
    elif isinstance(error, TimeoutError):
        text = text or "did not answer in time"
    elif isinstance(error, OSError) and error.strerror:
        text = one_line(error.strerror)
    return text or type(error).__name__
