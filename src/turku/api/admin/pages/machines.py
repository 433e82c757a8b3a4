"""The admin page of machines."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString

from turku.api.admin import columns, presentation
from turku.api.admin.confirmed_action import confirmed
from turku.api.admin.model_admin import SwitchableAdmin
from turku.api.admin.pages.sources import back_up_now_and_report
from turku.api.audit import log
from turku.api.backups.kept_after_move import default_end
from turku.api.backups.models import BackupRun, Source, SourceChange
from turku.api.fleet import former_history, moving, mute, removal
from turku.api.fleet.models import Machine, Storage
from turku.api.fleet.search import matching_machines
from turku.api.status import fleet_marks, reasons
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import InvalidValue, UsageError


class MoveForm(forms.Form):
    """The storage that machines are moved to, and the end of the old history."""

    storage = forms.ModelChoiceField(Storage.objects.filter(active=True, published=True, is_draining=False))
    keep_until = forms.DateTimeField(
        required=False,
        help_text="End of the history on the former storage. Empty: as long as its retention reaches back, and at "
        "least 90 days.",
    )


class RemovalForm(forms.Form):
    """The fate of the history of removed machines."""

    history = forms.ChoiceField(
        choices=(("keep", "keep without end"), ("until", "keep until"), ("trash", "to the storage's trash"))
    )
    keep_until = forms.DateTimeField(required=False, help_text="For “keep until”.")

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        until = cleaned.get("keep_until")
        if cleaned.get("history") == "until" and (until is None or until <= SYSTEM_CLOCK.now()):
            raise ValidationError({"keep_until": "A moment in the future is needed."})
        return cleaned


class MachineForm(forms.ModelForm):  # type: ignore[type-arg]  # generic in Django's type stubs only
    """A mute has an end and a reason."""

    class Meta:
        model = Machine
        fields = ("active", "storage", "date_muted_until", "mute_reason")

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if "storage" in self.changed_data and cleaned.get("storage") is not None:
            try:
                moving.require_target(cleaned["storage"])
            except UsageError as error:
                raise ValidationError({"storage": error.sentence}) from None
        if {"date_muted_until", "mute_reason"} & set(self.changed_data):
            until, reason = cleaned.get("date_muted_until"), cleaned.get("mute_reason") or ""
            try:
                mute.check(until, reason, now=SYSTEM_CLOCK.now())
            except InvalidValue as error:
                raise ValidationError({"date_muted_until": error.sentence}) from None
        return cleaned


def _profiles(row: Machine, column: str, nothing: Any) -> Any:
    """Return a column of the machine's report on profiles. A machine that accepts none has no report."""
    report = getattr(row, "profiles", None)
    return nothing if report is None else getattr(report, column)


@admin.register(Machine)
class MachineAdmin(SwitchableAdmin):
    """Machines. The operator switches them and assigns their storage. Everything else comes from the machine."""

    list_display = (
        *("title", "health", "seen", "storage_link", "sources_link"),
        *("environment_name", "service_name", "active", "published", "uuid"),
    )
    forbidden = ("add",)
    form = MachineForm
    related_counts = {Source: "machine"}
    list_filter = (columns.mark_filter(fleet_marks.machine_conditions), "active", "published", "storage")
    search_fields = ("uuid", "unit_name", "service_name", "environment_name", "comment")
    sortable_by = ("title", "seen", "environment_name", "service_name")
    list_select_related = ("storage",)
    actions = ("back_up_now", "enable", "disable", "move", "remove")
    fieldsets = (
        (None, {"fields": ("title", "health", "reason", "next_step", "active", "published", "storage")}),
        ("Mute", {"fields": ("date_muted_until", "mute_reason")}),
        ("Related", {"fields": ("sources_link", "runs_link", "weakenings_link", "audit_link")}),
        ("Names", {"fields": ("uuid", "environment_name", "service_name", "unit_name", "comment")}),
        ("Profiles", {"fields": ("accepted_profiles", "taken_profiles", "refused_profiles")}),
        ("SSH", {"fields": ("ssh_public_key",)}),
        ("Host", {"fields": ("versions_shown", "former_shown")}),
        ("History", {"fields": ("auth_link", "date_registered", "date_checked_in")}),
    )
    readonly_fields = columns.all_but(fieldsets, "active", "storage", "date_muted_until", "mute_reason")
    matching = staticmethod(matching_machines)
    title = columns.text("machine", str, "unit_name")
    seen = columns.moment("last seen", "date_checked_in", "date_checked_in")
    storage_link = columns.link("storage", "storage", "storage__name")
    sources_link = columns.list_link("sources", Source, "machine")
    weakenings_link = columns.list_link("weakening changes", SourceChange, "source__machine", "all changes")
    audit_link = columns.text("audit log", presentation.audit_links)
    runs_link = columns.list_link("backup runs", BackupRun, "source__machine", "all runs")
    auth_link = columns.link("registered with", "auth")
    accepted_profiles = columns.text("accepted below", lambda row: ", ".join(_profiles(row, "accepts", [])))
    taken_profiles = columns.text(
        "taken", lambda row: ", ".join(f"{name} ({profile})" for name, profile in _profiles(row, "taken", {}).items())
    )
    refused_profiles = columns.text(
        "refused",
        lambda row: "; ".join(
            f"{each['source']} ({each['profile']}): {each['reason']}" for each in _profiles(row, "refused", [])
        ),
    )

    versions_shown = columns.text("versions", presentation.versions)

    @admin.display(description="former histories")
    def former_shown(self, row: Machine) -> str:
        rows = former_history.of_machine(row.uuid)
        found = [f"on {each.storage}: {former_history.fate(each.date_keep_until, now=self.now)}" for each in rows]
        return "\n".join(found) or presentation.NOTHING

    def get_queryset(self, _request: HttpRequest) -> QuerySet[Machine]:
        return fleet_marks.machines(now=self.now)

    @admin.action(description="Move to another storage", permissions=["change"])
    def move(self, request: HttpRequest, queryset: QuerySet[Machine]) -> TemplateResponse | None:
        def carry_out(rows: Sequence[Machine], values: dict[str, Any]) -> str:
            for row in rows:
                self._move(request, row, values["storage"], values["keep_until"])
            return f"{len(rows)} moved. Each begins a new history with its next backup, which is a full one."

        return confirmed(self, request, queryset, MoveForm, carry_out, title="Move machines to another storage")

    def _move(self, request: HttpRequest, row: Machine, target: Storage, keep_until: datetime | None) -> None:
        end = keep_until or default_end(row, now=self.now)
        moving.move(row, target, end, actor=log.person(request.user), now=self.now)

    @admin.action(description="Remove", permissions=["delete"])
    def remove(self, request: HttpRequest, queryset: QuerySet[Machine]) -> TemplateResponse | None:
        if not request.user.has_perm("backups.delete_source") and Source.objects.filter(machine__in=queryset).exists():
            # The sources are deleted with their machine.
            raise PermissionDenied

        def carry_out(rows: Sequence[Machine], values: dict[str, Any]) -> str:
            ends = {"keep": None, "trash": self.now, "until": values["keep_until"]}
            for row in rows:
                self._remove(request, row, ends[values["history"]])
            return f"{len(rows)} removed. They are refused when they come back, until turku-api machine readmit."

        return confirmed(self, request, queryset, RemovalForm, carry_out, title="Remove machines")

    def _remove(self, request: HttpRequest, row: Machine, keep_until: datetime | None) -> None:
        removal.remove_machine(row, keep_until, actor=log.person(request.user), now=self.now)

    def delete_model(self, request: HttpRequest, obj: Machine) -> None:
        """Remove the machine, so that it does not come back by its timer. Its history is kept."""
        self._remove(request, obj, None)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Machine]) -> None:
        for row in queryset:
            self._remove(request, row, None)

    def save_model(self, request: HttpRequest, obj: Machine, form: Any, change: bool) -> None:  # noqa: FBT001  (Django's signature)
        """Save the machine. Another storage is a move, whose old history is kept as by default."""
        target = obj.storage
        if not change or "storage" not in form.changed_data or target is None:
            super().save_model(request, obj, form, change)
            return
        obj.storage_id = form.initial.get("storage")
        super().save_model(request, obj, form, change)
        self._move(request, Machine.objects.get(pk=obj.pk), target, None)
        obj.storage = target

    @admin.action(description="Back up now", permissions=["change"])
    def back_up_now(self, request: HttpRequest, queryset: QuerySet[Machine]) -> None:
        keys = list(queryset.values_list("pk", flat=True))
        back_up_now_and_report(self, request, Source.objects.filter(machine__in=keys), now=self.now)

    def count_related(self, rows: Sequence[Model]) -> None:
        """Count for all these rows, and find the worst source of each."""
        super().count_related(rows)
        worst = reasons.worst_sources([row.pk for row in rows], now=self.now)
        for row in rows:
            row.turku_worst = worst.get(row.pk)  # type: ignore[attr-defined]

    def _worst(self, row: Any) -> Any:
        if not hasattr(row, "turku_worst"):
            self.count_related([row])
        return row.turku_worst

    @admin.display(description="health", ordering="mark")
    def health(self, row: Any) -> SafeString:
        worst = self._worst(row)
        why = reasons.machine_reason(row, worst, now=self.now)
        return presentation.mark_with_reason(row.mark, why, reasons.machine_next_step(row, worst))

    @admin.display(description="reason")
    def reason(self, row: Any) -> str:
        return reasons.machine_reason(row, self._worst(row), now=self.now) or presentation.NOTHING

    @admin.display(description="next step")
    def next_step(self, row: Any) -> str:
        return reasons.machine_next_step(row, self._worst(row)) or presentation.NOTHING
