"""The middleware that answers calls before Django's middleware for pages."""

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import resolve

PREFIX = "/v1/"
PREFIX_V2 = "/v2/"
"""The calls beyond the contract. A coordinator of the existing system answers them with 404."""
PREFIXES = (PREFIX, PREFIX_V2)
PEOPLE_PREFIX = f"{PREFIX_V2}restore_request"
"""The calls of people, who authenticate by their session of the admin site and need all middleware."""


class CallsShortcutMiddleware:
    """Answers calls directly. The middleware below it serves sessions, forms and pages of people.

    A call authenticates by the secret in its body. The middleware above it serves all requests: client address and
    response headers. The Host header is checked here.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not request.path_info.startswith(PREFIXES) or request.path_info.startswith(PEOPLE_PREFIX):
            return self._get_response(request)
        # Raises DisallowedHost, which is answered with 400.
        request.get_host()
        view, arguments, named_arguments = resolve(request.path_info)
        response: HttpResponseBase = view(request, *arguments, **named_arguments)
        return response
