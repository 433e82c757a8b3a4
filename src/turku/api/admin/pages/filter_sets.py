"""The admin page of filter sets."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError

from turku.api.admin.model_admin import SwitchableAdmin
from turku.api.backups.filter_sets import FilterSets
from turku.api.fleet.models import FilterSet
from turku.errors import InvalidValue


class FilterSetForm(forms.ModelForm):  # type: ignore[type-arg]  # generic in Django's type stubs only
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
            raise ValidationError(error.sentence) from None

    def save(self, commit: bool = True) -> Any:  # noqa: FBT001, FBT002  (Django's signature)
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
