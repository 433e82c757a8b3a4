"""Base classes of the admin pages."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Count, Model, Q, QuerySet
from django.http import HttpRequest
from django.utils.text import capfirst

from turku.api.admin import bounded_list, columns
from turku.api.admin.audited import AuditedMixin
from turku.api.admin.bounded_list import BoundedChangeList, BoundedPaginator
from turku.core.clock import SYSTEM_CLOCK


class TurkuModelAdmin(AuditedMixin, admin.ModelAdmin):  # type: ignore[type-arg]  # generic in Django's type stubs only
    """The base of all pages: audited, with bounded lists of fifty rows, styled marks and the current time.

    Lists are sorted by the columns of ``sortable_by``, which have an index or few rows.
    """

    list_per_page = 50
    list_max_show_all = 200
    paginator = BoundedPaginator
    show_full_result_count = False
    save_on_top = False
    related_counts: Mapping[type[Model], str] = {}
    """The models whose rows are counted for each row, with their foreign key to it."""
    linked_lookups: Sequence[str] = ()
    """The lookups that links on other pages use, beside those of ``list_filter``."""
    change_context: Mapping[str, Any] = {}
    """The context of the template of one object's page."""
    forbidden: Collection[str] = ()
    """Actions that nobody may do by hand: ``add``, ``change`` or ``delete``."""
    matching: Callable[[Sequence[str]], Q] | None = None
    """A static method from words to the condition that all of them match, or None to use ``search_fields``."""

    class Media:
        css = {"all": ("turku/marks.css",)}

    @property
    def now(self) -> datetime:
        return SYSTEM_CLOCK.now()

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Show the list under its plural name."""
        title = capfirst(self.opts.verbose_name_plural)
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        """Show the page of one object under its model's name."""
        context = {"title": capfirst(self.opts.verbose_name), **self.change_context, **(extra_context or {})}
        return super().change_view(request, object_id, form_url, context)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return "add" not in self.forbidden and super().has_add_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return "change" not in self.forbidden and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return "delete" not in self.forbidden and super().has_delete_permission(request, obj)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[BoundedChangeList]:  # noqa: ARG002  (Django's signature)
        return BoundedChangeList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup in self.linked_lookups or super().lookup_allowed(lookup, value, request)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Return the objects that are deleted with these.

        Rows that nobody can delete by themselves, such as restore requests, are deleted with their subject.
        """
        deleted, counts, needed, protected = super().get_deleted_objects(objs, request)
        alone = {
            str(model._meta.verbose_name)
            for model, pages in self.admin_site._registry.items()
            if "delete" not in getattr(pages, "forbidden", ())
        }
        return deleted, counts, {name for name in needed if name in alone}, protected

    def count(self, row: Model, model: type[Model]) -> int:
        """Return the number of rows of one of the ``related_counts`` that belong to this one."""
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

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Model], search_term: str
    ) -> tuple[QuerySet[Model], bool]:
        """Return the rows that match every word, and True if one may be among them twice."""
        words = bounded_list.words(search_term)
        if self.matching is None:
            return super().get_search_results(request, queryset, search_term)
        return queryset.filter(self.matching(words) if words else Q()), False


class ListActionAdmin(TurkuModelAdmin):
    """A page to read, without buttons to save. Decisions are actions of the list."""

    forbidden = ("add", "delete")
    change_context = {"show_save": False, "show_save_and_continue": False}


class SwitchableAdmin(TurkuModelAdmin):
    """A page for models with the operator's switch ``active``."""

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


class SourceColumns:
    """List columns for a model with a ``source`` and possibly a ``storage``."""

    source_link = columns.link("source", "source", "source__name")
    machine_link = columns.link("machine", "source.machine", "source__machine__unit_name")
    storage_link = columns.link("storage", "storage", "storage__name")
