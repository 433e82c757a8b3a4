"""The admin site. The modules of ``pages`` register their models with it."""

import math
from http import HTTPStatus
from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse


class TurkuAdminSite(AdminSite):
    """Django's admin, titled Turku."""

    site_header = "Turku"
    site_title = "Turku"
    index_title = "Coordinator"
    site_url = None

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the login page of Django. An address that failed too often is refused before its password is checked."""
        # Models cannot be imported yet when Django imports this module.
        from turku.api.fleet.identity.throttle import LOGINS
        from turku.api.request import client_address

        if request.method != "POST":
            return super().login(request, extra_context)
        address = client_address.current_address()
        seconds = LOGINS.blocked_seconds(address)
        if seconds:
            response = HttpResponse(
                "Too many failed logins came from this address. Try again later.\n",
                status=HTTPStatus.TOO_MANY_REQUESTS,
                content_type="text/plain",
            )
            response.headers["Retry-After"] = str(math.ceil(seconds))
            return response
        response = super().login(request, extra_context)
        if response.status_code == HTTPStatus.OK:
            LOGINS.failed(address)
        return response
