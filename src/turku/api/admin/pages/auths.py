"""The admin page of registration Auths."""

import json
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from turku.api.admin import columns
from turku.api.admin.model_admin import SwitchableAdmin
from turku.api.fleet.identity import auths, join_tokens
from turku.api.fleet.models import Auth, AuthKind, Machine, Storage
from turku.core.secret import Secret
from turku.errors import ConfigurationError, UsageError

_INITIAL_USES = 1


def _used(auth: Auth) -> str:
    return str(auth.uses_count) if auth.uses_limit is None else f"{auth.uses_count} of {auth.uses_limit}"


def _setup_line(auth: Auth, secret: Secret) -> str:
    """Return the command that sets a new host up, or an empty text if the coordinator does not know its address."""
    try:
        word = join_tokens.token_of(auth, secret).encode()
    except (UsageError, ConfigurationError):
        return ""
    return f"{'turku-agent' if auth.kind == AuthKind.MACHINE else 'turku-storage'} setup {word}"


@admin.register(Auth)
class AuthAdmin(SwitchableAdmin):
    """Registration Auths. The secret of a new one, and the join token with it, are shown once."""

    list_display = ("name", "kind", "state", "used", "ends", "machines_link", "storages_link", "added", "comment")
    list_filter = ("kind", "active")
    search_fields = ("name", "comment")
    fields = ("name", "kind", "active", "uses_limit", "date_ends", "comment")
    related_counts = {Machine: "auth", Storage: "auth"}
    machines_link = columns.list_link("machines", Machine, "auth")
    storages_link = columns.list_link("storages", Storage, "auth")
    added = columns.moment("added", "date_added", "date_added")
    used = columns.text("used", _used)
    ends = columns.moment("ends", "date_ends", "date_ends")

    @admin.display(description="state")
    def state(self, row: Auth) -> str:
        return auths.state(row, now=self.now).value

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Return the initial values of a new one, which are the limits of a join token for one host."""
        initial = {"uses_limit": _INITIAL_USES, "date_ends": self.now + join_tokens.DEFAULT_LIFETIME}
        return {**initial, **super().get_changeform_initial_data(request)}

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
        given: Secret = request.turku_secret  # type: ignore[attr-defined]
        secret = given.reveal()
        snippet = json.dumps({"api_auth_name": obj.name, "api_auth_secret": secret}, indent=4)
        program = "machine's agent" if obj.kind == AuthKind.MACHINE else "storage"
        context = {**self.admin_site.each_context(request), "title": f"Secret of {obj.name}"}
        context |= {"auth": obj, "secret": secret, "snippet": snippet, "program": program}
        context |= {"setup_line": _setup_line(obj, given)}
        response = TemplateResponse(request, "turku/auth_secret.html", context)
        response.headers["Cache-Control"] = "no-store"
        return response
