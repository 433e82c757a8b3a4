"""The admin page of restore policies."""

from __future__ import annotations

from django.contrib import admin

from turku.api.admin.scoped_policies import FOR, ScopedPolicyAdmin
from turku.api.restores.models import RestorePolicy


@admin.register(RestorePolicy)
class RestorePolicyAdmin(ScopedPolicyAdmin):
    """Who has which history, and who approves."""

    list_display = ("scope", "history_visible", "approvals", "other_machines", "comment")
    list_filter = ("history_visible", "approvals")
    fieldsets = (
        FOR,
        ("The machine itself", {"fields": ("history_visible",)}),
        ("Restores asked for at the coordinator", {"fields": ("approvals", "other_machines")}),
        (None, {"fields": ("comment",)}),
    )
