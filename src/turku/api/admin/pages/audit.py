"""The admin pages of the audit log, people and groups."""

import ipaddress
from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from turku.api.admin import columns, presentation
from turku.api.admin.audited import AuditedMixin
from turku.api.admin.model_admin import TurkuModelAdmin
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
class AuditEntryAdmin(TurkuModelAdmin):
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
    forbidden = ("add", "change", "delete")
    matching = staticmethod(matching_entries)
    happened = columns.moment("when", "date", "date")
    by = columns.text("by", lambda row: f"{row.get_actor_kind_display()} {row.actor}".strip(), "actor")
    was = columns.text("was", lambda row: _short(row.old))
    becomes = columns.text("became", lambda row: _short(row.new))
    old_values = columns.text("old values", lambda row: presentation.values(row.old))
    new_values = columns.text("new values", lambda row: presentation.values(row.new))
