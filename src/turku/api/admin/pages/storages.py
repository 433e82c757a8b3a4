"""The admin page of storages."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from turku.api.admin import presentation
from turku.api.admin.model_admin import MarkFilter, NoAddAdmin
from turku.api.fleet.models import Machine, Storage
from turku.api.status import fleet_marks
from turku.core import units

_MIB = 1024**2


class StorageMarkFilter(MarkFilter):
    """The marks that a storage can have."""

    conditions = staticmethod(lambda now: fleet_marks.storage_conditions(now=now))


@admin.register(Storage)
class StorageAdmin(NoAddAdmin):
    """Storages. The operator switches them. Everything else comes from the storage."""

    list_display = ("name", "health", "seen", "machines_link", "available", "total", "address", "active", "published")
    related_counts = {Machine: "storage"}
    list_filter = (StorageMarkFilter, "active", "published")
    search_fields = ("name", "comment", "ssh_ping_host")
    list_select_related = ("auth",)
    fieldsets = (
        (None, {"fields": ("name", "health", "problems", "active", "published", "comment", "machines_link")}),
        ("Space", {"fields": ("available", "total")}),
        ("SSH", {"fields": ("address", "ssh_ping_user", "host_keys")}),
        ("History", {"fields": ("auth_link", "date_registered", "date_checked_in", "audit_link")}),
    )
    readonly_fields = (
        "audit_link",
        *("name", "health", "problems", "published", "comment", "machines_link", "available", "total", "address"),
        *("ssh_ping_user", "host_keys", "auth_link", "date_registered", "date_checked_in"),
    )

    def get_queryset(self, _request: HttpRequest) -> QuerySet[Storage]:
        return fleet_marks.storages(now=self.now)

    @admin.display(description="health", ordering="mark")
    def health(self, row: Any) -> SafeString:
        return presentation.mark(row.mark)

    @admin.display(description="last seen", ordering="date_checked_in")
    def seen(self, row: Storage) -> str:
        return presentation.moment(row.date_checked_in, now=self.now)

    @admin.display(description="machines")
    def machines_link(self, row: Any) -> SafeString:
        return presentation.list_link(Machine, self.count(row, Machine), storage__id__exact=row.pk)

    @admin.display(description="space available", ordering="space_available")
    def available(self, row: Storage) -> str:
        return units.size(row.space_available * _MIB)

    @admin.display(description="space total", ordering="space_total")
    def total(self, row: Storage) -> str:
        return units.size(row.space_total * _MIB)

    @admin.display(description="SSH address", ordering="ssh_ping_host")
    def address(self, row: Storage) -> str:
        return f"{row.ssh_ping_host}:{row.ssh_ping_port}"

    @admin.display(description="audit log")
    def audit_link(self, row: Storage) -> SafeString:
        return presentation.audit_links(row)

    @admin.display(description="problems")
    def problems(self, row: Storage) -> str:
        return "\n".join(row.faults) or presentation.NOTHING

    @admin.display(description="SSH host keys")
    def host_keys(self, row: Storage) -> str:
        return "\n".join(row.ssh_ping_host_keys)

    @admin.display(description="registered with")
    def auth_link(self, row: Storage) -> str:
        return presentation.change_link(row.auth)
