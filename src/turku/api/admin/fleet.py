"""The admin pages of the fleet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString

from turku.api.admin import presentation
from turku.api.admin.back_up_now import tell_back_up_now
from turku.api.admin.model_admin import MarkFilter, RegisteredAdmin, SwitchableAdmin
from turku.api.admin.policies import PolicyAdmin
from turku.api.backups.filter_sets import FilterSets
from turku.api.backups.models import BackupRun, Source, SourceChange
from turku.api.fleet import auths, mute
from turku.api.fleet.models import Auth, AuthKind, FilterSet, Machine, Storage
from turku.api.fleet.search import matching_machines
from turku.api.status import fleet as health
from turku.api.status import machine_reasons, reasons
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import InvalidValue

__all__ = ["AuthAdmin", "FilterSetAdmin", "MachineAdmin", "PolicyAdmin", "StorageAdmin"]


@admin.register(Auth)
class AuthAdmin(SwitchableAdmin):
    """Registration Auths; a new one's secret is shown once."""

    list_display = ("name", "kind", "active", "machines_link", "storages_link", "added", "comment")
    list_filter = ("kind", "active")
    search_fields = ("name", "comment")
    fields = ("name", "kind", "active", "comment")
    related_counts = {Machine: "auth", Storage: "auth"}

    def get_readonly_fields(self, _request: HttpRequest, obj: Auth | None = None) -> tuple[str, ...]:
        return ("kind",) if obj else ()

    def save_model(self, request: HttpRequest, obj: Auth, form: Any, change: bool) -> None:  # noqa: FBT001  (Django's signature)
        if change:
            super().save_model(request, obj, form, change)
            return
        secret = auths.prepare(obj, now=self.now)
        obj.save()
        # For response_add alone: kept with the request, never in a session or message.
        request.turku_secret = secret  # type: ignore[attr-defined]

    def response_add(self, request: HttpRequest, obj: Auth, _post_url_continue: str | None = None) -> HttpResponse:
        """The page that shows the new secret."""
        secret = request.turku_secret.reveal()  # type: ignore[attr-defined]
        snippet = json.dumps({"api_auth_name": obj.name, "api_auth_secret": secret}, indent=4)
        program = "machine's agent" if obj.kind == AuthKind.MACHINE else "storage"
        context = {**self.admin_site.each_context(request), "title": f"Secret of {obj.name}"}
        context |= {"auth": obj, "secret": secret, "snippet": snippet, "program": program}
        response = TemplateResponse(request, "turku/auth_secret.html", context)
        response.headers["Cache-Control"] = "no-store"
        return response

    @admin.display(description="machines")
    def machines_link(self, row: Any) -> SafeString:
        return presentation.list_link(Machine, self.count(row, Machine), auth__id__exact=row.pk)

    @admin.display(description="storages")
    def storages_link(self, row: Any) -> SafeString:
        return presentation.list_link(Storage, self.count(row, Storage), auth__id__exact=row.pk)

    @admin.display(description="added", ordering="date_added")
    def added(self, row: Auth) -> str:
        return presentation.moment(row.date_added, now=self.now)


class StorageMarkFilter(MarkFilter):
    """The marks that a storage can have."""

    conditions = staticmethod(lambda now: health.storage_conditions(now=now))


@admin.register(Storage)
class StorageAdmin(RegisteredAdmin):
    """Storages; all but the operator's switch is the storage's own word."""

    list_display = ("name", "health", "seen", "machines_link", "available", "total", "address", "active", "published")
    related_counts = {Machine: "storage"}
    list_filter = (StorageMarkFilter, "active", "published")
    search_fields = ("name", "comment", "ssh_ping_host")
    list_select_related = ("auth",)
    fieldsets = (
        (None, {"fields": ("name", "health", "wrong", "active", "published", "comment", "machines_link")}),
        ("Space", {"fields": ("available", "total")}),
        ("SSH", {"fields": ("address", "ssh_ping_user", "host_keys")}),
        ("History", {"fields": ("auth_link", "date_registered", "date_checked_in", "audit_link")}),
    )
    readonly_fields = (
        "audit_link",
        *("name", "health", "wrong", "published", "comment", "machines_link", "available", "total", "address"),
        *("ssh_ping_user", "host_keys", "auth_link", "date_registered", "date_checked_in"),
    )

    def get_queryset(self, _request: HttpRequest) -> QuerySet[Storage]:
        return health.storages(now=self.now)

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
        return presentation.size(row.space_available)

    @admin.display(description="space total", ordering="space_total")
    def total(self, row: Storage) -> str:
        return presentation.size(row.space_total)

    @admin.display(description="SSH address", ordering="ssh_ping_host")
    def address(self, row: Storage) -> str:
        return f"{row.ssh_ping_host}:{row.ssh_ping_port}"

    @admin.display(description="audit log")
    def audit_link(self, row: Storage) -> SafeString:
        return presentation.audit_links(row)

    @admin.display(description="what is wrong with it")
    def wrong(self, row: Storage) -> str:
        return "\n".join(row.faults) or presentation.NOTHING

    @admin.display(description="SSH host keys")
    def host_keys(self, row: Storage) -> str:
        return "\n".join(row.ssh_ping_host_keys)

    @admin.display(description="registered with")
    def auth_link(self, row: Storage) -> str:
        return presentation.change_link(row.auth)


class MachineMarkFilter(MarkFilter):
    """The marks that a machine can have."""

    conditions = staticmethod(lambda now: health.machine_conditions(now=now))


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
                raise ValidationError({"date_muted_until": f"{error.message}. {error.hint}".strip()}) from None
        return cleaned


@admin.register(Machine)
class MachineAdmin(RegisteredAdmin):
    """Machines; the operator switches them and chooses their storage, all else is the machine's own word."""

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
        (None, {"fields": ("title", "health", "why", "what_to_do", "active", "published", "storage")}),
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
            "why",
            "what_to_do",
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
        return health.machines(now=self.now)

    def matches(self, words: Sequence[str]) -> Q:
        return matching_machines(words)

    @admin.action(description="Back up now", permissions=["change"])
    def back_up_now(self, request: HttpRequest, queryset: QuerySet[Machine]) -> None:
        keys = list(queryset.values_list("pk", flat=True))
        tell_back_up_now(self, request, Source.objects.filter(machine__in=keys), now=self.now)

    @admin.display(description="machine", ordering="unit_name")
    def title(self, row: Machine) -> str:
        return str(row)

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
        why = machine_reasons.reason(row, worst, now=self.now)
        return presentation.mark_with_reason(row.mark, why, machine_reasons.next_step(row, worst))

    @admin.display(description="why")
    def why(self, row: Any) -> str:
        return machine_reasons.reason(row, self._worst(row), now=self.now) or presentation.NOTHING

    @admin.display(description="what to do next")
    def what_to_do(self, row: Any) -> str:
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


if TYPE_CHECKING:
    # Generic in Django's type stubs only.
    _FilterSetModelForm = forms.ModelForm[FilterSet]
else:
    _FilterSetModelForm = forms.ModelForm


class FilterSetForm(_FilterSetModelForm):
    """Rules as lines of text, checked as a whole."""

    lines = forms.CharField(
        label="Rules",
        required=False,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 20, "cols": 80}),
        help_text="One rsync filter rule a line, such as “- /var/cache/***”; “merge NAME” takes in another set.",
    )

    class Meta:
        model = FilterSet
        fields = ("name", "active", "comment")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.initial.setdefault("lines", "\n".join(self.instance.rules))

    def clean_lines(self) -> list[str]:
        rules = [line for line in self.cleaned_data["lines"].splitlines() if line.strip()]
        try:
            return FilterSets().check(rules)
        except InvalidValue as error:
            raise ValidationError(f"{error.message} {error.hint}".strip()) from None

    def save(self, commit: bool = True) -> FilterSet:  # noqa: FBT001, FBT002  (Django's signature)
        self.instance.rules = self.cleaned_data["lines"]
        return super().save(commit)


@admin.register(FilterSet)
class FilterSetAdmin(SwitchableAdmin):
    """Filter sets."""

    form = FilterSetForm
    list_display = ("name", "rule_count", "active", "comment")
    list_filter = ("active",)
    search_fields = ("name", "comment")
    fields = ("name", "active", "comment", "lines")

    @admin.display(description="rules")
    def rule_count(self, row: FilterSet) -> int:
        return len(row.rules)
