"""The admin pages of policies and restore policies."""

from decimal import Decimal
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError

from turku.api.admin import columns, presentation
from turku.api.admin.model_admin import TurkuModelAdmin
from turku.api.backups.models import SnapshotModeChoices
from turku.api.fleet.models import Policy
from turku.api.restores.models import RestorePolicy
from turku.core import units
from turku.errors import InvalidValue
from turku.policy import retention

FOR: tuple[str, Any] = ("For", {"fields": ("auth", "machine"), "description": "Leave both empty for all machines."})
"""The first fieldset of a policy page."""
SEARCHED = (
    *("comment", "auth__name", "machine__unit_name", "machine__service_name"),
    *("machine__environment_name", "machine__uuid"),
)


class ScopedPolicyAdmin(TurkuModelAdmin):
    """Policies with their scope."""

    search_fields: ClassVar[tuple[str, ...]] = SEARCHED
    list_select_related = ("auth", "machine")
    autocomplete_fields = ("machine",)
    scope = columns.text("for", str, "machine_id")


_GIB = 1024**3


class PolicyForm(forms.ModelForm):  # type: ignore[type-arg]  # generic in Django's type stubs only
    """The quota in GiB, modes as boxes to tick, retention checked."""

    modes = forms.MultipleChoiceField(
        label="Allowed snapshot modes",
        required=False,
        choices=SnapshotModeChoices.choices,
        widget=forms.CheckboxSelectMultiple,
        help_text="A source with another mode gets the default one. None ticked means any mode, or that of "
        "wider policies.",
    )
    quota_gib = forms.DecimalField(
        label="Quota in GiB",
        required=False,
        min_value=0,
        max_value=10**9,
        help_text="The space that all sources of a machine may use together on its storage.",
    )

    class Meta:
        model = Policy
        fields = (
            *("auth", "machine", "retention_floor", "delay_hours", "weakening_allowed"),
            *("silent_after_hours", "comment"),
        )

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.initial.setdefault("modes", self.instance.allowed_snapshot_modes or [])
        if self.instance.quota_bytes is not None:
            self.initial.setdefault("quota_gib", Decimal(self.instance.quota_bytes) / _GIB)

    def clean_retention_floor(self) -> str:
        text: str = self.cleaned_data["retention_floor"].strip()
        if not text:
            return ""
        try:
            return retention.parse(text).text
        except InvalidValue as error:
            raise ValidationError(error.sentence) from None

    def save(self, commit: bool = True) -> Any:  # noqa: FBT001, FBT002  (Django's signature)
        gib: Decimal | None = self.cleaned_data["quota_gib"]
        self.instance.quota_bytes = None if gib is None else int(gib * _GIB)
        self.instance.allowed_snapshot_modes = self.cleaned_data["modes"] or None
        return super().save(commit)


@admin.register(Policy)
class PolicyAdmin(ScopedPolicyAdmin):
    """The operator's policies."""

    form = PolicyForm
    list_display = (
        *("scope", "retention_floor", "modes", "quota", "delay_hours", "weakening_allowed", "silent_after_hours"),
        "comment",
    )
    list_filter = ("weakening_allowed",)
    search_fields = ("retention_floor", *SEARCHED)
    fieldsets = (
        FOR,
        ("Floor", {"fields": ("retention_floor", "modes", "quota_gib")}),
        ("Changes that weaken protection", {"fields": ("delay_hours", "weakening_allowed")}),
        ("Silence", {"fields": ("silent_after_hours",)}),
        (None, {"fields": ("comment",)}),
    )
    modes = columns.text("allowed modes", lambda row: ", ".join(row.allowed_snapshot_modes or []))

    @admin.display(description="quota", ordering="quota_bytes")
    def quota(self, row: Policy) -> str:
        return presentation.NOTHING if row.quota_bytes is None else units.size(row.quota_bytes)


@admin.register(RestorePolicy)
class RestorePolicyAdmin(ScopedPolicyAdmin):
    """Rules for access to history and for approvals."""

    list_display = ("scope", "history_visible", "approvals", "other_machines", "comment")
    list_filter = ("history_visible", "approvals")
    fieldsets = (
        FOR,
        ("The machine itself", {"fields": ("history_visible",)}),
        ("Restores asked for at the coordinator", {"fields": ("approvals", "other_machines")}),
        (None, {"fields": ("comment",)}),
    )
