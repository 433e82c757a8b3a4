"""Lists of the admin site at a bounded cost: only the first rows are counted."""

import shlex
from functools import cached_property
from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest

LIMIT = 2_000
"""The number of rows that a list shows on all its pages. Filters and searches reach the others."""


class MoreThan(int):
    """A lower bound: ``more than 2,000``."""

    def __str__(self) -> str:
        return f"more than {int(self):,}"


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # generic in Django's type stubs only
    """A paginator that reads the keys of at most LIMIT rows, in one query."""

    @cached_property
    def _keys(self) -> list[Any]:
        rows: QuerySet[Model] = self.object_list  # type: ignore[assignment]  # of the admin's lists
        return list(rows.values_list("pk", flat=True)[: LIMIT + 1])

    @cached_property
    def count(self) -> int:
        """The number of rows, or MoreThan(LIMIT)."""
        found = len(self._keys)
        return found if found <= LIMIT else MoreThan(LIMIT)

    def keys_of(self, page_number: int) -> list[Any]:
        """Return the primary keys of the rows on that page."""
        first = (page_number - 1) * self.per_page
        return self._keys[:LIMIT][first : first + self.per_page]


class BoundedChangeList(ChangeList):
    """A list that searches once and reads the rows of the page by the counted keys."""

    def get_results(self, request: HttpRequest) -> None:
        """Count, and read the rows of the page."""
        super().get_results(request)
        if not (self.show_all and self.can_show_all):
            keys = self.paginator.keys_of(self.page_num)
            rows = self.root_queryset.filter(pk__in=keys).order_by(*self.queryset.query.order_by)
            self.result_list = self.apply_select_related(rows)
        self.result_list = list(self.result_list)
        self.model_admin.count_related(self.result_list)  # type: ignore[attr-defined]  # it is a TurkuModelAdmin


def words(text: str) -> list[str]:
    """Return the words of a search. Words in quotation marks are one."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()
