"""The address of the client, as reported by the proxies that the operator trusts and by no others."""

import ipaddress
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from turku.api.configuration.environment import TrustedProxies

_current: ContextVar[str] = ContextVar("turku_origin", default="")


def current_address() -> str:
    """Return the address of the client of the current request, or an empty text outside of requests."""
    return _current.get()


@lru_cache(maxsize=1000)
def _plain(hop: str) -> str:
    """Return the address in one hop of X-Forwarded-For, or an empty text if it holds none.

    A hop is ``192.0.2.1``, ``192.0.2.1:4711`` or ``[2001:db8::1]:4711``.
    """
    text = hop.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def client_address(peer: str, forwarded_for: str, trusted: TrustedProxies) -> str:
    """Return the address of the client, or an empty text for a Unix socket without a forwarded address.

    Each trusted hop, beginning with the peer, is believed about the one before it. The client itself wrote everything
    left of the first untrusted address, so that part is not read.
    """
    address = _plain(peer)
    hops = forwarded_for.split(",") if forwarded_for else []
    while hops and trusted.holds(address):
        before = _plain(hops.pop())
        if not before:
            break
        address = before
    return address


class ClientAddressMiddleware:
    """Stores the address of the client for the request, and takes the scheme from a trusted proxy."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        trusted: TrustedProxies = settings.TURKU_ENVIRONMENT.trusted_proxies
        peer = str(request.META.get("REMOTE_ADDR", ""))
        address = client_address(peer, str(request.META.get("HTTP_X_FORWARDED_FOR", "")), trusted)
        # The proxy may have terminated TLS. Cookies, HSTS and the CSRF check depend on the scheme.
        if trusted.holds(_plain(peer)) and request.META.get("HTTP_X_FORWARDED_PROTO") in ("https", "http"):
            request.META["wsgi.url_scheme"] = request.META["HTTP_X_FORWARDED_PROTO"]
        token = _current.set(address)
        try:
            return self._get_response(request)
        finally:
            _current.reset(token)
