"""The admin page of restore policies."""

from __future__ import annotations

from django.contrib import admin

from turku.api.restores.models import RestorePolicy
from turku.api.site.model_admin import TurkuModelAdmin


@admin.register(RestorePolicy)
class RestorePolicyAdmin(TurkuModelAdmin):
    """Who has which history, and who approves."""

    list_display = ("scope", "history_visible", "approvals", "other_machines", "comment")
    list_filter = ("history_visible", "approvals")
    search_fields = (
        *("comment", "auth__name", "machine__unit_name", "machine__service_name"),
        *("machine__environment_name", "machine__uuid"),
    )
    list_select_related = ("auth", "machine")
    autocomplete_fields = ("machine",)
    fieldsets = (
        ("For", {"fields": ("auth", "machine"), "description": "Neither of them: for all machines."}),
        ("The machine itself", {"fields": ("history_visible",)}),
        ("Restores asked for at the coordinator", {"fields": ("approvals", "other_machines")}),
        (None, {"fields": ("comment",)}),
    )

    @admin.display(description="for", ordering="machine_id")
    def scope(self, row: RestorePolicy) -> str:
        return str(row)
