"""Base classes of the admin pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Count, Model, Q, QuerySet
from django.http import HttpRequest
from django.utils.text import capfirst

from turku.api.admin import bounded_list, presentation
from turku.api.admin.audited import AuditedMixin
from turku.api.admin.bounded_list import BoundedChangeList, BoundedPaginator
from turku.api.status.marks import Conditions, Mark, has_mark
from turku.core.clock import SYSTEM_CLOCK


class MarkFilter(admin.SimpleListFilter):
    """Lists by health mark. A subclass says which conditions its rows have."""

    title = "health"
    parameter_name = "mark"
    conditions: Callable[[datetime], Conditions]
    """From the current time; a static method."""

    def lookups(self, _request: HttpRequest, _model_admin: Any) -> list[tuple[str, str]]:
        marks = (Mark.OK, *self.conditions(SYSTEM_CLOCK.now()))
        return [("problem", "any problem"), *((mark.value, str(mark.label)) for mark in marks)]

    def queryset(self, _request: HttpRequest, queryset: QuerySet[Model]) -> QuerySet[Model]:
        value = self.value()
        conditions = self.conditions(SYSTEM_CLOCK.now())
        if value == "problem":
            return queryset.filter(has_mark(conditions, [mark for mark in Mark if mark.is_problem]))
        if value in Mark.values:
            return queryset.filter(has_mark(conditions, [Mark(value)]))
        return queryset


if TYPE_CHECKING:
    # Generic in Django's type stubs only.
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin


class TurkuModelAdmin(AuditedMixin, _ModelAdmin):
    """Audited; bounded lists of fifty with marks styled, and the current time for those who show times.

    Lists are sorted by what ``sortable_by`` names: the columns that have an index, or few rows.
    """

    list_per_page = 50
    list_max_show_all = 200
    paginator = BoundedPaginator
    show_full_result_count = False
    save_on_top = False
    related_counts: Mapping[type[Model], str] = {}
    """The models whose rows are counted for each row, and the field of theirs that names it."""
    linked_lookups: Sequence[str] = ()
    """By what the links on other pages ask for rows, beside what ``list_filter`` names."""

    class Media:
        css = {"all": ("turku/marks.css",)}

    @property
    def now(self) -> datetime:
        return SYSTEM_CLOCK.now()

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """The list, headed by what it lists."""
        title = capfirst(self.opts.verbose_name_plural)
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        """One object's page, headed by what it is."""
        title = capfirst(self.opts.verbose_name)
        return super().change_view(request, object_id, form_url, {"title": title, **(extra_context or {})})

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[BoundedChangeList]:  # noqa: ARG002  (Django's signature)
        return BoundedChangeList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup in self.linked_lookups or super().lookup_allowed(lookup, value, request)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What goes with the objects. Rows that nobody can delete by themselves, such as restore requests, go with what
        they are about."""
        deleted, counts, needed, protected = super().get_deleted_objects(objs, request)
        alone = {
            str(model._meta.verbose_name)
            for model, pages in self.admin_site._registry.items()
            if type(pages).has_delete_permission is admin.ModelAdmin.has_delete_permission
        }
        return deleted, counts, {name for name in needed if name in alone}, protected

    def count(self, row: Model, model: type[Model]) -> int:
        """How many rows of one of the ``related_counts`` belong to this one."""
        if not hasattr(row, "turku_counts"):
            self.count_related([row])
        counts: dict[type[Model], int] = row.turku_counts  # type: ignore[attr-defined]
        return counts[model]

    def count_related(self, rows: Sequence[Model]) -> None:
        """Count for all these rows, in one query for each model."""
        for row in rows:
            row.turku_counts = {}  # type: ignore[attr-defined]
        for model, relation in self.related_counts.items():
            related = model._default_manager.filter(**{f"{relation}__in": [row.pk for row in rows]}).order_by()
            counts = dict(related.values_list(relation).annotate(rows=Count("*")))
            for row in rows:
                row.turku_counts[model] = counts.get(row.pk, 0)  # type: ignore[attr-defined]

    def matches(self, _words: Sequence[str]) -> Q | None:
        """What these words together find; None for what ``search_fields`` name, in lists of few rows."""
        return None

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Model], search_term: str
    ) -> tuple[QuerySet[Model], bool]:
        """The rows that every word finds; whether one may be among them twice."""
        words = bounded_list.words(search_term)
        found = self.matches(words) if words else Q()
        if found is None:
            return super().get_search_results(request, queryset, search_term)
        return queryset.filter(found), False


class NoAddDeleteAdmin(TurkuModelAdmin):
    """Models whose rows are Turku's own to make and to remove: nobody does either here."""

    def has_add_permission(self, _request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, _request: HttpRequest, _row: Model | None = None) -> bool:
        return False


class ListActionAdmin(NoAddDeleteAdmin):
    """Pages to read: what there is to decide is decided in the list."""

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        """One object's page, without buttons to save."""
        buttons = {"show_save": False, "show_save_and_continue": False}
        return super().change_view(request, object_id, form_url, {**buttons, **(extra_context or {})})


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
            with transaction.atomic():
                row.save(update_fields=["active"])
                self.log_change(request, row, "Enabled." if active else "Disabled.")
        word = "enabled" if active else "disabled"
        self.message_user(request, f"{len(switched)} {word}.", messages.SUCCESS)


class NoAddAdmin(SwitchableAdmin):
    """Models whose rows register themselves: the operator switches and deletes, but makes none."""

    def has_add_permission(self, _request: HttpRequest) -> bool:
        return False


class SourceColumns:
    """For a model with a ``source``, and a ``storage`` where its list names that column."""

    @admin.display(description="source", ordering="source__name")
    def source_link(self, row: Any) -> str:
        return presentation.change_link(row.source)

    @admin.display(description="machine", ordering="source__machine__unit_name")
    def machine_link(self, row: Any) -> str:
        return presentation.change_link(row.source.machine)

    @admin.display(description="storage", ordering="storage__name")
    def storage_link(self, row: Any) -> str:
        return presentation.change_link(row.storage)
