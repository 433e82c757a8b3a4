"""The admin page of machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from turku.api.admin import presentation
from turku.api.admin.model_admin import MarkFilter, NoAddAdmin
from turku.api.admin.pages.sources import back_up_now_and_report
from turku.api.backups.models import BackupRun, Source, SourceChange
from turku.api.fleet import mute
from turku.api.fleet.models import Machine
from turku.api.fleet.search import matching_machines
from turku.api.status import fleet_marks, machine_reasons, source_reasons
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import InvalidValue


class MachineMarkFilter(MarkFilter):
    """The marks that a machine can have."""

    conditions = staticmethod(lambda now: fleet_marks.machine_conditions(now=now))


if TYPE_CHECKING:
    # Generic in Django's type stubs only.
    _MachineModelForm = forms.ModelForm[Machine]
else:
    _MachineModelForm = forms.ModelForm


class MachineForm(_MachineModelForm):
    """A mute has an end and a reason."""

    class Meta:
        model = Machine
        fields = ("active", "storage", "date_muted_until", "mute_reason")

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if {"date_muted_until", "mute_reason"} & set(self.changed_data):
            until, reason = cleaned.get("date_muted_until"), cleaned.get("mute_reason") or ""
            try:
                mute.check(until, reason, now=SYSTEM_CLOCK.now())
            except InvalidValue as error:
                raise ValidationError({"date_muted_until": error.sentence}) from None
        return cleaned


@admin.register(Machine)
class MachineAdmin(NoAddAdmin):
    """Machines. The operator switches them and assigns their storage. Everything else comes from the machine."""

    list_display = (
        *("title", "health", "seen", "storage_link", "sources_link"),
        *("environment_name", "service_name", "active", "published", "uuid"),
    )
    form = MachineForm
    related_counts = {Source: "machine"}
    list_filter = (MachineMarkFilter, "active", "published", "storage")
    search_fields = ("uuid", "unit_name", "service_name", "environment_name", "comment")
    sortable_by = ("title", "seen", "environment_name", "service_name")
    list_select_related = ("storage",)
    actions = ("back_up_now", "enable", "disable")
    fieldsets = (
        (None, {"fields": ("title", "health", "reason", "next_step", "active", "published", "storage")}),
        ("Mute", {"fields": ("date_muted_until", "mute_reason")}),
        ("Related", {"fields": ("sources_link", "runs_link", "weakenings_link", "audit_link")}),
        ("Names", {"fields": ("uuid", "environment_name", "service_name", "unit_name", "comment")}),
        ("SSH", {"fields": ("ssh_public_key",)}),
        ("History", {"fields": ("auth_link", "date_registered", "date_checked_in")}),
    )
    readonly_fields = (
        *(
            "title",
            "health",
            "reason",
            "next_step",
            "published",
            "sources_link",
            "runs_link",
            "weakenings_link",
            "audit_link",
            "uuid",
        ),
        *("environment_name", "service_name", "unit_name", "comment", "ssh_public_key", "auth_link"),
        *("date_registered", "date_checked_in"),
    )

    def get_queryset(self, _request: HttpRequest) -> QuerySet[Machine]:
        return fleet_marks.machines(now=self.now)

    def matches(self, words: Sequence[str]) -> Q:
        return matching_machines(words)

    @admin.action(description="Back up now", permissions=["change"])
    def back_up_now(self, request: HttpRequest, queryset: QuerySet[Machine]) -> None:
        keys = list(queryset.values_list("pk", flat=True))
        back_up_now_and_report(self, request, Source.objects.filter(machine__in=keys), now=self.now)

    @admin.display(description="machine", ordering="unit_name")
    def title(self, row: Machine) -> str:
        return str(row)

    def count_related(self, rows: Sequence[Model]) -> None:
        """Count for all these rows, and find the worst source of each."""
        super().count_related(rows)
        worst = source_reasons.worst_sources([row.pk for row in rows], now=self.now)
        for row in rows:
            row.turku_worst = worst.get(row.pk)  # type: ignore[attr-defined]

    def _worst(self, row: Any) -> Any:
        if not hasattr(row, "turku_worst"):
            self.count_related([row])
        return row.turku_worst

    @admin.display(description="health", ordering="mark")
    def health(self, row: Any) -> SafeString:
        worst = self._worst(row)
        why = machine_reasons.reason(row, worst, now=self.now)
        return presentation.mark_with_reason(row.mark, why, machine_reasons.next_step(row, worst))

    @admin.display(description="reason")
    def reason(self, row: Any) -> str:
        return machine_reasons.reason(row, self._worst(row), now=self.now) or presentation.NOTHING

    @admin.display(description="next step")
    def next_step(self, row: Any) -> str:
        return machine_reasons.next_step(row, self._worst(row)) or presentation.NOTHING

    @admin.display(description="last seen", ordering="date_checked_in")
    def seen(self, row: Machine) -> str:
        return presentation.moment(row.date_checked_in, now=self.now)

    @admin.display(description="storage", ordering="storage__name")
    def storage_link(self, row: Machine) -> str:
        return presentation.change_link(row.storage)

    @admin.display(description="sources")
    def sources_link(self, row: Any) -> SafeString:
        return presentation.list_link(Source, self.count(row, Source), machine__id__exact=row.pk)

    @admin.display(description="weakening changes")
    def weakenings_link(self, row: Machine) -> SafeString:
        return presentation.list_link(SourceChange, "all changes", source__machine__id__exact=row.pk)

    @admin.display(description="audit log")
    def audit_link(self, row: Machine) -> SafeString:
        return presentation.audit_links(row)

    @admin.display(description="backup runs")
    def runs_link(self, row: Machine) -> SafeString:
        return presentation.list_link(BackupRun, "all runs", source__machine__id__exact=row.pk)

    @admin.display(description="registered with")
    def auth_link(self, row: Machine) -> str:
        return presentation.change_link(row.auth)
