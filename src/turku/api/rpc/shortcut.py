"""The calls' short way through Django."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import resolve

PREFIX = "/v1/"
PREFIX_V2 = "/v2/"
"""The calls beyond the contract: an existing coordinator answers them with 404."""
PREFIXES = (PREFIX, PREFIX_V2)
PEOPLE_PREFIX = f"{PREFIX_V2}restore_request"
"""The calls of people, who prove themselves by their session of the admin site: they go Django's whole way."""


class CallsShortcutMiddleware:
    """Answers the calls itself: what stands below it in MIDDLEWARE is for people's sessions, forms and pages.

    A call proves itself by the secret in its body. What all requests need stands above: where it comes from, and the
    headers of the answer. The name of the host is looked at here.
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
