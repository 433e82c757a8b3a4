"""The admin page of storages."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from turku.api.admin import columns, presentation
from turku.api.admin.model_admin import SwitchableAdmin
from turku.api.fleet.models import Machine, Storage
from turku.api.status import fleet_marks
from turku.core import units

_MIB = 1024**2


@admin.register(Storage)
class StorageAdmin(SwitchableAdmin):
    """Storages. The operator switches them. Everything else comes from the storage."""

    list_display = ("name", "health", "seen", "machines_link", "available", "total", "address", "active", "published")
    related_counts = {Machine: "storage"}
    list_filter = (columns.mark_filter(fleet_marks.storage_conditions), "active", "published")
    search_fields = ("name", "comment", "ssh_ping_host")
    list_select_related = ("auth",)
    fieldsets = (
        (None, {"fields": ("name", "health", "problems", "active", "published", "comment", "machines_link")}),
        ("Space", {"fields": ("available", "total")}),
        ("SSH", {"fields": ("address", "ssh_ping_user", "host_keys")}),
        ("History", {"fields": ("auth_link", "date_registered", "date_checked_in", "audit_link")}),
    )
    readonly_fields = columns.all_but(fieldsets, "active")
    forbidden = ("add",)
    seen = columns.moment("last seen", "date_checked_in", "date_checked_in")
    machines_link = columns.list_link("machines", Machine, "storage")
    available = columns.text("space available", lambda row: units.size(row.space_available * _MIB), "space_available")
    total = columns.text("space total", lambda row: units.size(row.space_total * _MIB), "space_total")
    address = columns.text("SSH address", lambda row: f"{row.ssh_ping_host}:{row.ssh_ping_port}", "ssh_ping_host")
    audit_link = columns.text("audit log", presentation.audit_links)
    problems = columns.text("problems", lambda row: "\n".join(row.faults))
    host_keys = columns.text("SSH host keys", lambda row: "\n".join(row.ssh_ping_host_keys))
    auth_link = columns.link("registered with", "auth")

    def get_queryset(self, _request: HttpRequest) -> QuerySet[Storage]:
        return fleet_marks.storages(now=self.now)

    @admin.display(description="health", ordering="mark")
    def health(self, row: Any) -> SafeString:
        return presentation.mark(row.mark)
