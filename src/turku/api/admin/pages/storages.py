"""The admin page of storages."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString

from turku.api.admin import columns, presentation
from turku.api.admin.confirmed_action import confirmed
from turku.api.admin.model_admin import SwitchableAdmin
from turku.api.audit import log
from turku.api.backups.kept_after_move import default_end
from turku.api.fleet import former_history, moving, removal
from turku.api.fleet.models import Machine, Storage
from turku.api.status import fleet_marks, reasons
from turku.core import units

_MIB = 1024**2
_SHOWN = 100


class DrainForm(forms.Form):
    """The new place of the machines of a storage that is drained."""

    machines = forms.ChoiceField(choices=(("move", "move them"), ("stay", "leave them, and only take no new ones")))
    storage = forms.ModelChoiceField(
        Storage.objects.filter(active=True, published=True, is_draining=False),
        required=False,
        help_text="Empty: the others, in proportion to their free space.",
    )


class StorageRemovalForm(forms.Form):
    """Says that histories on a removed storage may be given up."""

    abandon = forms.BooleanField(
        required=False, label="also if they keep the history of machines that were moved or removed"
    )


@admin.register(Storage)
class StorageAdmin(SwitchableAdmin):
    """Storages. The operator switches them. Everything else comes from the storage."""

    list_display = ("name", "health", "seen", "machines_link", "available", "total", "address", "active", "published")
    related_counts = {Machine: "storage"}
    list_filter = (columns.mark_filter(fleet_marks.storage_conditions), "active", "published")
    search_fields = ("name", "comment", "ssh_ping_host")
    list_select_related = ("auth",)
    fieldsets = (
        (None, {"fields": ("name", "health", "reason", "active", "published", "is_draining", "comment")}),
        ("Machines", {"fields": ("machines_link", "former_shown")}),
        ("Host", {"fields": ("versions_shown",)}),
        ("Space", {"fields": ("available", "total")}),
        ("SSH", {"fields": ("address", "ssh_ping_user", "host_keys")}),
        ("History", {"fields": ("auth_link", "date_registered", "date_checked_in", "audit_link")}),
    )
    readonly_fields = columns.all_but(fieldsets, "active")
    forbidden = ("add", "delete")
    actions = ("enable", "disable", "drain", "undrain", "remove")
    seen = columns.moment("last seen", "date_checked_in", "date_checked_in")
    machines_link = columns.list_link("machines", Machine, "storage")
    available = columns.text("space available", lambda row: units.size(row.space_available * _MIB), "space_available")
    total = columns.text("space total", lambda row: units.size(row.space_total * _MIB), "space_total")
    address = columns.text("SSH address", lambda row: f"{row.ssh_ping_host}:{row.ssh_ping_port}", "ssh_ping_host")
    audit_link = columns.text("audit log", presentation.audit_links)
    versions_shown = columns.text("versions", presentation.versions)
    host_keys = columns.text("SSH host keys", lambda row: "\n".join(row.ssh_ping_host_keys))
    auth_link = columns.link("registered with", "auth")

    def get_queryset(self, _request: HttpRequest) -> QuerySet[Storage]:
        return fleet_marks.storages(now=self.now)

    @admin.action(description="Drain", permissions=["change"])
    def drain(self, request: HttpRequest, queryset: QuerySet[Storage]) -> TemplateResponse | None:
        def carry_out(rows: Sequence[Storage], values: dict[str, Any]) -> str:
            actor, moved = log.person(request.user), 0
            for row in rows:
                plan = {} if values["machines"] == "stay" else moving.spread(row, values["storage"])
                moving.set_draining(row, is_draining=True, actor=actor, now=self.now)
                for machine, target in plan.items():
                    moving.move(machine, target, default_end(machine, now=self.now), actor=actor, now=self.now)
                moved += len(plan)
            return f"{len(rows)} drained, {moved} machines moved."

        return confirmed(self, request, queryset, DrainForm, carry_out, title="Drain storages")

    @admin.action(description="End draining", permissions=["change"])
    def undrain(self, request: HttpRequest, queryset: QuerySet[Storage]) -> None:
        for row in queryset:
            moving.set_draining(row, is_draining=False, actor=log.person(request.user), now=self.now)
        self.message_user(request, "They get new machines again.", messages.SUCCESS)

    @admin.action(description="Remove", permissions=["change"])
    def remove(self, request: HttpRequest, queryset: QuerySet[Storage]) -> TemplateResponse | None:
        def carry_out(rows: Sequence[Storage], values: dict[str, Any]) -> str:
            for row in rows:
                removal.remove_storage(
                    row, abandons_histories=values["abandon"], actor=log.person(request.user), now=self.now
                )
            return f"{len(rows)} removed. They are refused when they come back, until turku-api storage readmit."

        return confirmed(self, request, queryset, StorageRemovalForm, carry_out, title="Remove storages")

    @admin.display(description="former histories")
    def former_shown(self, row: Storage) -> str:
        rows = former_history.on_storage(row)[:_SHOWN]
        found = [f"{each.machine_name}: {former_history.fate(each.date_keep_until, now=self.now)}" for each in rows]
        return "\n".join(found) or presentation.NOTHING

    @admin.display(description="health", ordering="mark")
    def health(self, row: Any) -> SafeString:
        return presentation.mark_with_reason(row.mark, reasons.storage_reason(row, now=self.now))

    @admin.display(description="reason")
    def reason(self, row: Any) -> str:
        return reasons.storage_reason(row, now=self.now) or presentation.NOTHING
