"""What the admin pages of policies share that are for all machines, for those of one Auth, or for one machine."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin

from turku.api.admin.model_admin import TurkuModelAdmin
from turku.api.fleet.models import ScopedPolicy

FOR: tuple[str, Any] = (
    "For",
    {"fields": ("auth", "machine"), "description": "Neither of them: for all machines."},
)
"""The first of a page's fieldsets."""
SEARCHED = (
    *("comment", "auth__name", "machine__unit_name", "machine__service_name"),
    *("machine__environment_name", "machine__uuid"),
)


class ScopedPolicyAdmin(TurkuModelAdmin):
    """Policies, each with whom it is for."""

    search_fields: ClassVar[tuple[str, ...]] = SEARCHED
    list_select_related = ("auth", "machine")
    autocomplete_fields = ("machine",)

    @admin.display(description="for", ordering="machine_id")
    def scope(self, row: ScopedPolicy) -> str:
        return str(row)
