"""The admin page of changes that weaken protection."""

from datetime import datetime

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from turku.api.admin import columns, presentation
from turku.api.admin.model_admin import ListActionAdmin, SourceColumns
from turku.api.backups import source_changes
from turku.api.backups.models import SourceChange
from turku.api.backups.search import matching_sources
from turku.core.clock import SYSTEM_CLOCK


def _effects(now: datetime) -> dict[str, tuple[str, Q]]:
    held_back = source_changes.not_yet_effective(now=now)
    return {"held": ("held back", held_back), "taken": ("taken effect", ~held_back)}


class DecisionForm(ActionForm):
    """Carries the time at which the list was shown. Later changes of a machine need another decision."""

    shown = forms.FloatField(initial=lambda: SYSTEM_CLOCK.now().timestamp(), widget=forms.HiddenInput, label="")
    """Unix seconds with microseconds, independent of the time zone."""


@admin.register(SourceChange)
class SourceChangeAdmin(SourceColumns, ListActionAdmin):
    """Changes of machines that weaken protection. The operator decides when they take effect."""

    list_display = ("changed", "machine_link", "source_link", "weakening_names", "takes_effect")
    list_filter = (columns.condition_filter("effect", "effect", _effects), "source__machine__storage")
    search_fields = ("source__name", "source__machine__unit_name", "source__machine__uuid")
    linked_lookups = ("source__machine__id__exact",)
    list_select_related = ("source__machine",)
    actions = ("let_take_effect", "hold")
    action_form = DecisionForm
    fields = ("date", "machine_link", "source_link", "weakening_names", "takes_effect", "old_values", "new_values")
    readonly_fields = fields
    matching = staticmethod(lambda words: matching_sources(words, "source__"))
    changed = columns.moment("changed", "date", "date")
    weakening_names = columns.text("weakenings", lambda row: ", ".join(row.weakenings))
    old_values = columns.text("before", lambda row: presentation.values(row.old))
    new_values = columns.text("after", lambda row: presentation.values(row.new))

    @admin.action(description="Apply to history now", permissions=["change"])
    def let_take_effect(self, request: HttpRequest, queryset: QuerySet[SourceChange]) -> None:
        self._decide(request, queryset, self.now)

    @admin.action(description="Hold back until an operator decides", permissions=["change"])
    def hold(self, request: HttpRequest, queryset: QuerySet[SourceChange]) -> None:
        self._decide(request, queryset, None)

    def _decide(self, request: HttpRequest, queryset: QuerySet[SourceChange], effective: datetime | None) -> None:
        now = self.now
        form = DecisionForm({**request.POST.dict(), "action": ""})
        form.is_valid()
        shown = form.cleaned_data.get("shown")
        decided = unseen = 0
        for row in queryset:
            if row.date_effective is not None and row.date_effective <= now:
                # History may have been deleted already, so there is nothing left to decide.
                continue
            if shown is None or row.date.timestamp() > shown or not self._decide_one(request, row, effective):
                unseen += 1
                continue
            decided += 1
        if decided:
            word = "held back" if effective is None else "take effect now"
            self.message_user(request, f"{decided} {word}.", messages.SUCCESS)
        if unseen:
            sentence = f"{unseen} changed again after this list was shown. Check them again before you decide."
            self.message_user(request, sentence, messages.WARNING)

    def _decide_one(self, request: HttpRequest, row: SourceChange, effective: datetime | None) -> bool:
        """Decide on the change if it is still the one that was shown, and return True if so."""
        before = row.date_effective
        with transaction.atomic():
            # Conditional, because a further change may join it at the same time.
            same = SourceChange.objects.filter(pk=row.pk, date=row.date, date_effective=before)
            if not same.update(date_effective=effective):
                return False
            row.date_effective = effective
            self.note_values(request, {"date_effective": before}, {"date_effective": effective})
            self.log_change(request, row, "Held back." if effective is None else "Applied.")
        return True

    @admin.display(description="takes effect on history", ordering="date_effective")
    def takes_effect(self, row: SourceChange) -> str:
        if row.date_effective is None:
            return "when an operator applies it"
        return presentation.moment(row.date_effective, now=self.now)
