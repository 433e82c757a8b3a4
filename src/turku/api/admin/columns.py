"""Columns of lists, which pages show as fields too, and filters of lists."""

from collections.abc import Callable, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest

from turku.api.admin import presentation
from turku.api.status.marks import Conditions, Mark, has_mark
from turku.core.clock import SYSTEM_CLOCK

Column = Callable[[Any, Any], Any]
"""A method of a page, from a row to the text that is shown."""


def text(heading: str, value: str | Callable[[Any], Any], ordering: str | None = None) -> Column:
    """Return a column of an attribute or a computed text. Nothing is shown as a dash."""
    read = attrgetter(value) if isinstance(value, str) else value
    return admin.display(description=heading, ordering=ordering)(lambda _page, row: read(row) or presentation.NOTHING)


def moment(heading: str, attribute: str, ordering: str | None = None) -> Column:
    """Return a column of a time, shown as ``3 h ago``."""

    @admin.display(description=heading, ordering=ordering)
    def column(page: Any, row: Model) -> str:
        return presentation.moment(getattr(row, attribute), now=page.now)

    return column


def link(heading: str, path: str, ordering: str | None = None) -> Column:
    """Return a column that links to the object at the path (``source.machine``)."""
    return text(heading, lambda row: presentation.change_link(attrgetter(path)(row)), ordering)


def list_link(
    heading: str, model: type[Model], lookup: str, shown: str | Callable[[Any], Any] = "", **lookups: str
) -> Column:
    """Return a column that links to the rows of a model whose ``lookup`` is this row.

    Without a text, their number is shown (``TurkuModelAdmin.related_counts``).
    """

    @admin.display(description=heading)
    def column(page: Any, row: Model) -> str:
        label = shown(row) if callable(shown) else shown or page.count(row, model)
        return presentation.list_link(model, label, **{f"{lookup}__id__exact": row.pk}, **lookups)

    return column


def all_but(fieldsets: Any, *editable: str) -> list[str]:
    """Return the names of the fields that nobody edits."""
    return [name for name in flatten_fieldsets(fieldsets) if name not in editable]


Options = Callable[[datetime], Mapping[str, tuple[str, Q]]]
"""From the current time to the label and the condition of each option of a filter."""


class ConditionFilter(admin.SimpleListFilter):
    """A filter whose options are conditions."""

    options: Options

    def lookups(self, _request: HttpRequest, _model_admin: Any) -> list[tuple[str, str]]:
        return [(name, label) for name, (label, _condition) in self.options(SYSTEM_CLOCK.now()).items()]

    def queryset(self, _request: HttpRequest, queryset: QuerySet[Model]) -> QuerySet[Model]:
        if self.value() is None:
            return queryset
        # A value that is not an option finds nothing: the whole list would look like its answer.
        found = self.options(SYSTEM_CLOCK.now()).get(self.value() or "")
        return queryset.filter(found[1]) if found else queryset.none()


def condition_filter(title: str, parameter: str, options: Options) -> type[ConditionFilter]:
    """Return a filter with that title and name in the address of the list."""
    attributes = {"title": title, "parameter_name": parameter, "options": staticmethod(options)}
    return type("OptionFilter", (ConditionFilter,), attributes)


def mark_filter(conditions: Callable[..., Conditions]) -> type[ConditionFilter]:
    """Return a filter by the health marks that rows can have."""

    def options(now: datetime) -> dict[str, tuple[str, Q]]:
        found = conditions(now=now)
        problems = has_mark(found, [mark for mark in Mark if mark.is_problem])
        by_mark = {mark.value: (str(mark.label), has_mark(found, [mark])) for mark in (Mark.OK, *found)}
        return {"problem": ("any problem", problems), **by_mark}

    return condition_filter("health", "mark", options)
