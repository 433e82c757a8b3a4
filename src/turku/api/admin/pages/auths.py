"""The admin page of registration Auths."""

import json
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from turku.api.admin import columns
from turku.api.admin.model_admin import SwitchableAdmin
from turku.api.fleet.identity import auths
from turku.api.fleet.models import Auth, AuthKind, Machine, Storage


@admin.register(Auth)
class AuthAdmin(SwitchableAdmin):
    """Registration Auths. The secret of a new one is shown once."""

    list_display = ("name", "kind", "active", "machines_link", "storages_link", "added", "comment")
    list_filter = ("kind", "active")
    search_fields = ("name", "comment")
    fields = ("name", "kind", "active", "comment")
    related_counts = {Machine: "auth", Storage: "auth"}
    machines_link = columns.list_link("machines", Machine, "auth")
    storages_link = columns.list_link("storages", Storage, "auth")
    added = columns.moment("added", "date_added", "date_added")

    def get_readonly_fields(self, _request: HttpRequest, obj: Auth | None = None) -> tuple[str, ...]:
        return ("kind",) if obj else ()

    def save_model(self, request: HttpRequest, obj: Auth, form: Any, change: bool) -> None:  # noqa: FBT001  (Django's signature)
        if change:
            super().save_model(request, obj, form, change)
            return
        secret = auths.prepare(obj, now=self.now)
        obj.save()
        # Only response_add reads it. It is kept with the request, never in a session or message.
        request.turku_secret = secret  # type: ignore[attr-defined]

    def response_add(self, request: HttpRequest, obj: Auth, _post_url_continue: str | None = None) -> HttpResponse:
        """Show the page with the new secret."""
        secret = request.turku_secret.reveal()  # type: ignore[attr-defined]
        snippet = json.dumps({"api_auth_name": obj.name, "api_auth_secret": secret}, indent=4)
        program = "machine's agent" if obj.kind == AuthKind.MACHINE else "storage"
        context = {**self.admin_site.each_context(request), "title": f"Secret of {obj.name}"}
        context |= {"auth": obj, "secret": secret, "snippet": snippet, "program": program}
        response = TemplateResponse(request, "turku/auth_secret.html", context)
        response.headers["Cache-Control"] = "no-store"
        return response
