"""The URLs of pages and calls."""

from http import HTTPStatus

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, URLResolver, include, path
from django.views import defaults
from django.views.generic import RedirectView

from turku.api.rpc.endpoint import refusal
from turku.api.rpc.shortcut import PREFIXES

urlpatterns: list[URLPattern | URLResolver] = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("", include("turku.api.rpc.urls")),
    path("admin/", admin.site.urls),
]


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request that Django refuses before any view, such as one with a foreign Host header."""
    if request.path.startswith(PREFIXES):
        return refusal(
            HTTPStatus.BAD_REQUEST, "the request is malformed, or its Host header is not in TURKU_ALLOWED_HOSTS"
        )
    return defaults.bad_request(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer a request that failed through our own fault. The log has the traceback."""
    if request.path.startswith(PREFIXES):
        return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "the coordinator failed; its log has the reason")
    return defaults.server_error(request)


handler400 = bad_request
handler500 = server_error
