"""Audit entries for everything that people do in the admin site, with old and new values."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.forms import ModelChoiceField
from django.http import HttpRequest

from turku.api.audit import log
from turku.core.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    # Generic in Django's type stubs only.
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = object


def _shown(form: Any, name: str, value: Any) -> Any:
    """Return the object that a form value names, or the value itself."""
    field = form.fields.get(name)
    if isinstance(field, ModelChoiceField) and not isinstance(value, (Model, QuerySet)):
        try:
            value = field.clean(value)
        except ValidationError:
            return value
    return list(value) if isinstance(value, QuerySet) else value


class AuditedMixin(_ModelAdmin):
    """A mixin for each ModelAdmin. It writes the audit entry in the transaction of the page's own change."""

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:  # noqa: FBT001, FBT002  (Django's signature)
        """Return Django's own message.

        Django calls this between saving and logging, when old and new values are known.
        """
        changed = form.changed_data
        old = {} if add else {name: _shown(form, name, form.initial.get(name)) for name in changed}
        self.note_values(request, old, {name: _shown(form, name, form.cleaned_data.get(name)) for name in changed})
        return super().construct_change_message(request, form, formsets, add)

    def note_values(self, request: HttpRequest, old: dict[str, Any], new: dict[str, Any]) -> None:
        """Keep the values for the entry that the next log_addition or log_change writes."""
        request.turku_audit_values = (old, new)  # type: ignore[attr-defined]

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        self._record(request, "added", [obj])
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        self._record(request, "changed", [obj])
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        self._record(request, "deleted", queryset)
        return super().log_deletions(request, queryset)

    def _record(self, request: HttpRequest, word: str, rows: Iterable[Model]) -> None:
        nothing: dict[str, Any] = {}
        old, new = getattr(request, "turku_audit_values", (nothing, nothing))
        request.turku_audit_values = ({}, {})  # type: ignore[attr-defined]
        weakens = word == "deleted" or (new.get("active") is False and old.get("active") is True)
        action = f"{self.opts.model_name}.{word}"
        entries = [log.NewEntry(action, row, old=old, new=new, weakens=weakens) for row in rows]
        log.record(log.person(request.user), entries, now=SYSTEM_CLOCK.now())
