"""The admin pages of the audit log, people and groups."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from turku.api.admin import presentation
from turku.api.admin.audited import AuditedMixin
from turku.api.admin.model_admin import NoAddDeleteAdmin
from turku.api.audit.models import AuditEntry
from turku.api.fleet.search import few_machines

admin.site.unregister([User, Group])


@admin.register(User)
class AuditedUserAdmin(AuditedMixin, UserAdmin):  # type: ignore[type-arg]  # generic in Django's type stubs only
    """People."""


@admin.register(Group)
class AuditedGroupAdmin(AuditedMixin, GroupAdmin):
    """Groups of people."""


def matching_entries(words: Sequence[str]) -> Q:
    """Return a condition that finds entries by every word.

    A word matches an action, name, key, actor or address exactly. It also finds entries about or by a machine that it
    matches, unless those machines are many.
    """
    return Q(*(_matching_entries(word) for word in words))


def _matching_entries(word: str) -> Q:
    names = [word, *(str(uuid) for uuid in few_machines(word, "uuid") or ())]
    found = Q(subject_key__in=names) | Q(actor__in=names) | Q(subject=word) | Q(action=word)
    try:
        return found | Q(address=str(ipaddress.ip_address(word)))
    except ValueError:
        return found


_SHORT = 60


def _short(values: dict[str, Any]) -> str:
    text = ", ".join(f"{name}: {value}" for name, value in values.items())
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"


class ActionFilter(admin.SimpleListFilter):
    """The actions that are in the log."""

    title = "action"
    parameter_name = "action"

    def lookups(self, _request: HttpRequest, _model_admin: Any) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        # One query for each action uses the index. A single query would read the whole log, which only grows.
        actions = AuditEntry.objects.order_by("action").values_list("action", flat=True)
        action = actions.first()
        while action is not None:
            found.append((action, action))
            action = actions.filter(action__gt=action).first()
        return found

    def queryset(self, _request: HttpRequest, queryset: QuerySet[AuditEntry]) -> QuerySet[AuditEntry]:
        return queryset.filter(action=self.value()) if self.value() else queryset


@admin.register(AuditEntry)
class AuditEntryAdmin(NoAddDeleteAdmin):
    """The audit log, to be read only."""

    list_display = ("happened", "action", "subject", "subject_kind", "by", "address", "weakens", "was", "becomes")
    list_filter = ("weakens", "actor_kind", ActionFilter)
    search_fields = ("subject", "subject_key", "actor", "address", "action")
    sortable_by = ("happened",)
    fields = (
        *("date", "action", "weakens", "actor_kind", "actor", "address"),
        *("subject_kind", "subject_key", "subject", "old_values", "new_values"),
    )
    readonly_fields = fields

    def has_change_permission(self, _request: HttpRequest, _row: Model | None = None) -> bool:
        return False

    def matches(self, words: Sequence[str]) -> Q:
        return matching_entries(words)

    @admin.display(description="when", ordering="date")
    def happened(self, row: AuditEntry) -> str:
        return presentation.moment(row.date, now=self.now)

    @admin.display(description="by", ordering="actor")
    def by(self, row: AuditEntry) -> str:
        return f"{row.get_actor_kind_display()} {row.actor}".strip()

    @admin.display(description="was")
    def was(self, row: AuditEntry) -> str:
        return _short(row.old) or presentation.NOTHING

    @admin.display(description="became")
    def becomes(self, row: AuditEntry) -> str:
        return _short(row.new) or presentation.NOTHING

    @admin.display(description="old values")
    def old_values(self, row: AuditEntry) -> SafeString:
        return presentation.values(row.old)

    @admin.display(description="new values")
    def new_values(self, row: AuditEntry) -> SafeString:
        return presentation.values(row.new)
