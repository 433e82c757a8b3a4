"""What the admin pages of all models share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from turku.api.fleet.health import Mark
from turku.api.site.audited import Audited
from turku.core.clock import SYSTEM_CLOCK


class MarkFilter(admin.SimpleListFilter):
    """Lists by health mark; the rows carry the annotation ``mark``."""

    title = "health"
    parameter_name = "mark"
    marks: tuple[Mark, ...] = tuple(Mark)

    def lookups(self, _request: HttpRequest, _model_admin: Any) -> list[tuple[str, str]]:
        return [("problem", "any problem"), *((mark.value, str(mark.label)) for mark in self.marks)]

    def queryset(self, _request: HttpRequest, queryset: QuerySet[Model]) -> QuerySet[Model]:
        value = self.value()
        if value == "problem":
            return queryset.filter(mark__in=[mark.value for mark in Mark if mark.is_problem])
        if value in Mark.values:
            return queryset.filter(mark=value)
        return queryset


if TYPE_CHECKING:
    # Generic in Django's type stubs only.
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin


class TurkuModelAdmin(Audited, _ModelAdmin):
    """Audited; lists of fifty with marks styled, and the current time for those who show times."""

    list_per_page = 50
    save_on_top = False

    class Media:
        css = {"all": ("turku/marks.css",)}

    @property
    def now(self) -> datetime:
        return SYSTEM_CLOCK.now()


class SwitchableAdmin(TurkuModelAdmin):
    """Models with the operator's switch ``active``."""

    actions: Sequence[str] = ("enable", "disable")

    @admin.action(description="Enable selected %(verbose_name_plural)s", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[Model]) -> None:
        self._switch(request, queryset, active=True)

    @admin.action(description="Disable selected %(verbose_name_plural)s", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Model]) -> None:
        self._switch(request, queryset, active=False)

    def _switch(self, request: HttpRequest, queryset: QuerySet[Model], *, active: bool) -> None:
        switched = [row for row in queryset if row.active is not active]  # type: ignore[attr-defined]  # all have it
        for row in switched:
            row.active = active  # type: ignore[attr-defined]
            self.note_values(request, {"active": not active}, {"active": active})
            row.save(update_fields=["active"])
            self.log_change(request, row, "Enabled." if active else "Disabled.")
        word = "enabled" if active else "disabled"
        self.message_user(request, f"{len(switched)} {word}.", messages.SUCCESS)


class RegisteredAdmin(SwitchableAdmin):
    """Models whose rows register themselves: the operator switches and deletes, but makes none."""

    def has_add_permission(self, _request: HttpRequest) -> bool:
        return False
