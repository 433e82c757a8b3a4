"""The admin page of profiles."""

import hashlib
from typing import Any

import msgspec
from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from turku.api.admin import columns, presentation
from turku.api.admin.model_admin import TurkuModelAdmin
from turku.api.backups.profiles import document, preview
from turku.api.backups.profiles.models import MachineProfile
from turku.api.backups.profiles.outcome import outcome_of
from turku.core.cli.output import json_text
from turku.core.units import count_of
from turku.errors import InvalidValue
from turku.policy.declaration import profiles


class ProfileForm(forms.ModelForm):  # type: ignore[type-arg]  # generic in Django's type stubs only
    """Sources and defaults as text. The first attempt to save shows whom the change touches. The second one saves."""

    source_text = forms.CharField(
        label="Sources",
        strip=False,
        widget=forms.Textarea(attrs={"rows": 20, "cols": 80}),
        help_text="Names and options of the sources, as JSON or YAML in the form of sources.d.",
    )
    default_text = forms.CharField(
        label="Defaults",
        required=False,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 6, "cols": 80}),
        help_text="Options of each source that does not set them. Lists of exclude are joined.",
    )
    seen = forms.CharField(required=False, widget=forms.HiddenInput, label="")
    """The preview that the person has seen."""

    class Meta:
        model = MachineProfile
        fields = ("name", "comment", "all_machines", "auth", "environment_name", "service_name")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.initial.setdefault("source_text", json_text(self.instance.sources or {}, indent=4))
        self.initial.setdefault("default_text", json_text(self.instance.defaults or {}, indent=4))

    def clean_name(self) -> str:
        try:
            return profiles.profile_name(self.cleaned_data["name"])
        except InvalidValue as error:
            raise ValidationError(error.sentence) from None

    def clean_source_text(self) -> dict[str, Any]:
        return self._options("source_text", dict[str, dict[str, Any]])

    def clean_default_text(self) -> dict[str, Any]:
        return self._options("default_text", dict[str, Any])

    def _options(self, field: str, kind: Any) -> dict[str, Any]:
        text = self.cleaned_data[field]
        try:
            content = document.parse(text, suffix="") if text.strip() else {}
            found: dict[str, Any] = msgspec.convert(content, kind)
        except (InvalidValue, msgspec.ValidationError) as error:
            raise ValidationError(str(error)) from None
        return found

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned
        try:
            document.check(cleaned["source_text"], cleaned["default_text"])
        except InvalidValue as error:
            raise ValidationError(error.sentence) from None
        if not cleaned["source_text"]:
            raise ValidationError({"source_text": "A profile has at least one source."})
        return cleaned

    def _post_clean(self) -> None:
        # The instance has the other fields only after this.
        super()._post_clean()  # type: ignore[misc]  # not in Django's type stubs
        if self.errors:
            return
        self.instance.sources = self.cleaned_data["source_text"]
        self.instance.defaults = self.cleaned_data["default_text"]
        effect = preview.of_change(self.instance)
        fingerprint = hashlib.sha256(msgspec.json.encode(effect)).hexdigest()
        if self.cleaned_data.get("seen") != fingerprint:
            self.data = {**dict(self.data.items()), self.add_prefix("seen"): fingerprint}
            self.add_error(
                None, ValidationError([*preview.lines(effect), "Nothing is saved yet. Save again to do it."])
            )


@admin.register(MachineProfile)
class MachineProfileAdmin(TurkuModelAdmin):
    """Profiles, each with the number of machines that it is for."""

    form = ProfileForm
    list_display = ("name", "group", "machines", "source_names", "changed", "comment")
    search_fields = ("name", "comment", "environment_name", "service_name")
    sortable_by = ("name",)
    list_select_related = ("auth",)
    fieldsets = (
        (None, {"fields": ("name", "comment")}),
        ("For", {"fields": ("all_machines", "auth", "environment_name", "service_name")}),
        ("Content", {"fields": ("source_text", "default_text", "seen")}),
        ("Machines", {"fields": ("outcome", "refusals")}),
    )
    readonly_fields = ("outcome", "refusals")
    group = columns.text("for", document.group_text)
    machines = columns.text("machines", lambda row: f"{preview.machines_of(row).count():,}")
    source_names = columns.text("sources", lambda row: presentation.shortened(", ".join(sorted(row.sources))))
    changed = columns.moment("changed", "date_changed")

    def save_model(self, request: HttpRequest, obj: MachineProfile, form: Any, change: Any) -> None:
        obj.date_changed = self.now
        super().save_model(request, obj, form, change)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Return the profiles that are deleted, with the number of machines whose sources that withdraws."""
        deleted, counts, needed, protected = super().get_deleted_objects(objs, request)
        numbers = {row.name: count_of(preview.machines_of(row).count(), "machine") for row in objs}
        touched = [f"What {number} took of {name} is withdrawn until confirmed" for name, number in numbers.items()]
        return [*deleted, *touched], counts, needed, protected

    @admin.display(description="taken by")
    def outcome(self, row: MachineProfile) -> str:
        if row._state.adding:
            return presentation.NOTHING
        found = outcome_of(row)
        return (
            f"{found.taking:,} of {count_of(found.machines, 'machine')}. Refused by {found.refusing:,}. "
            f"{found.not_accepting:,} accept no profiles."
        )

    @admin.display(description="refusals")
    def refusals(self, row: MachineProfile) -> Any:
        if row._state.adding:
            return presentation.NOTHING
        found = outcome_of(row).refusals
        return (
            presentation.values({f"{each.machine}: {each.source}": each.reason for each in found})
            if found
            else (presentation.NOTHING)
        )
