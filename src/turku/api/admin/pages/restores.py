"""The admin page of restore requests."""

import os
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from turku.api.admin import columns, presentation
from turku.api.admin.model_admin import TurkuModelAdmin
from turku.api.audit import log
from turku.api.backups.search import matching_sources
from turku.api.fleet.models import NAME_LENGTH, Machine
from turku.api.restores import description, new_request, transitions
from turku.api.restores.models import ENDED, OPEN, RequestState, RestoreRequest
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import InvalidValue, UsageError

_COLOURS = {
    RequestState.REQUESTED: "overdue",
    RequestState.DONE: "ok",
    RequestState.PARTIAL: "overdue",
    RequestState.FAILED: "failed",
    RequestState.REFUSED: "failed",
    RequestState.EXPIRED: "overdue",
}
"""The styles of health marks that states borrow. Other states are plain."""


def _progress(_now: datetime) -> dict[str, tuple[str, Q]]:
    return {
        "approval": ("to be approved", Q(state=RequestState.REQUESTED)),
        "open": ("open", Q(state__in=OPEN)),
        "over": ("over", Q(state__in=ENDED)),
    }


class RequestForm(forms.ModelForm):  # type: ignore[type-arg]  # generic in Django's type stubs only
    """The form of a new request, with one path a line, checked against the restore policies."""

    machine = forms.ModelChoiceField(
        label="Of machine",
        queryset=Machine.objects.all(),
        widget=AutocompleteSelect(RestoreRequest._meta.get_field("target"), admin.site),
    )
    source_name = forms.CharField(
        label="Source", max_length=NAME_LENGTH, help_text="Its name, as the machine's configuration has it."
    )
    path_lines = forms.CharField(
        label="Paths",
        required=False,
        widget=forms.Textarea(attrs={"rows": 5, "class": "vLargeTextField"}),
        strip=False,
        help_text="One a line, relative to the source's directory. Empty: the whole source.",
    )
    days = forms.IntegerField(
        label="Expires after days",
        initial=new_request.DEFAULT_DAYS,
        min_value=1,
        max_value=new_request.DAYS_LIMIT,
        help_text="When it is not approved, or the machine does not pick it up, by then.",
    )

    class Meta:
        model = RestoreRequest
        fields = ("target", "snapshot", "moment", "directory", "overwrite", "reason")
        labels = {"moment": "Or as it was at"}
        help_texts = {
            "snapshot": "Its name, as `turku-agent snapshots` shows it. Empty: the latest.",
            "moment": "Such as “2026-11-01 12:00” or “3 days ago”.",
            "target": "Empty: the same machine.",
            "directory": "On the machine; it has to lie inside a directory that its own setting remote_restore names.",
        }
        widgets = {
            "reason": forms.TextInput(attrs={"class": "vTextField"}),
            "directory": forms.TextInput(attrs={"class": "vTextField"}),
        }

    user: Any = None
    """The user who fills in the form, set by the page."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if "target" in self.fields:
            self.fields["target"].required = False

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned
        try:
            self.instance = new_request.build(
                self._requested(cleaned),
                requested_by=log.person(self.user).name,
                may_choose_any_machine=self.user.is_superuser,
                now=SYSTEM_CLOCK.now(),
            )
        except InvalidValue as error:
            raise ValidationError(error.sentence) from None
        return cleaned

    def _requested(self, cleaned: dict[str, Any]) -> new_request.RequestedRestore:
        sources = {source.name: source for source in cleaned["machine"].sources.select_related("machine").all()}
        if cleaned["source_name"] not in sources:
            raise ValidationError({"source_name": f"The machine has: {', '.join(sorted(sources)) or 'no source'}."})
        return new_request.RequestedRestore(
            source=sources[cleaned["source_name"]],
            target=cleaned["target"],
            directory=cleaned["directory"],
            reason=cleaned["reason"],
            snapshot=cleaned["snapshot"],
            moment=cleaned["moment"],
            paths=[os.fsencode(line) for line in cleaned["path_lines"].splitlines() if line],
            overwrite=cleaned["overwrite"],
            days=cleaned["days"],
        )

    def _post_clean(self) -> None:
        # The instance is built from the whole request, not field by field.
        return


@admin.register(RestoreRequest)
class RestoreRequestAdmin(TurkuModelAdmin):
    """Requests: made by a form, decided in the list, and from then on the machine's own word."""

    form = RequestForm
    list_display = ("requested", "status", "progress", "subject", "machines", "directory", "people")
    list_filter = (columns.condition_filter("progress", "progress", _progress),)
    list_select_related = ("source__machine__storage", "target")
    search_fields = ("source__name",)
    sortable_by = ("requested",)
    autocomplete_fields = ("target",)
    linked_lookups = ("source__machine__id__exact", "source__id__exact", "target__id__exact", "state")
    actions = ("approve", "reject", "cancel")
    _shown = (
        *("status", "waiting_reason", "subject", "of_machine", "onto", "directory", "overwrite", "path_list", "reason"),
        *("requested", "requested_by", "approvals", "expires", "picked_up", "attempts", "last_progress"),
        *("progress", "resolved_snapshot", "restored_snapshot", "ended", "message_text", "audit_link", "id"),
    )
    add_fieldsets = (
        ("What", {"fields": ("machine", "source_name", "path_lines", "snapshot", "moment")}),
        ("Where to", {"fields": ("target", "directory", "overwrite")}),
        (None, {"fields": ("reason", "days")}),
    )
    forbidden = ("change", "delete")
    matching = staticmethod(lambda words: matching_sources(words, "source__"))
    requested = columns.moment("requested", "date_requested", "date_requested")
    progress = columns.text("progress", lambda row: description.progress_text(row) or description.waiting_reason(row))
    waiting_reason = columns.text("waits because", description.waiting_reason)
    subject = columns.text("subject", description.subject_text)
    of_machine = columns.link("of machine", "source.machine")
    onto = columns.link("onto machine", "target")
    picked_up = columns.moment("picked up", "date_picked_up")
    last_progress = columns.moment("last progress report", "date_progress")
    ended = columns.moment("ended", "date_ended")
    message_text = columns.text("message of the machine", "message")
    audit_link = columns.text("audit log", presentation.audit_link)

    def has_approve_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("restores.approve_restorerequest")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return self.has_add_permission(request) or self.has_approve_permission(request)

    def get_fieldsets(self, _request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return self.add_fieldsets
        silent = () if description.waiting_reason(obj) else ("waiting_reason",)
        return ((None, {"fields": [name for name in self._shown if name not in silent]}),)

    def get_readonly_fields(self, _request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else self._shown

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any) -> Any:  # noqa: FBT001, FBT002  (Django's signature)
        form = super().get_form(request, obj, change=change, **options)
        if "target" in form.base_fields:
            widget = form.base_fields["target"].widget
            widget.can_change_related = widget.can_view_related = False
        form.user = request.user  # type: ignore[attr-defined]  # our form has it
        return form

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        transitions.expire(now=self.now)
        return super().changelist_view(request, extra_context)

    def save_model(self, request: HttpRequest, obj: RestoreRequest, form: Any, change: bool) -> None:  # noqa: ARG002, FBT001  (Django's signature)
        if change:
            raise PermissionDenied
        new_request.save(obj, actor=log.person(request.user), now=self.now)

    def _record(self, _request: HttpRequest, _word: str, _rows: Iterable[Model]) -> None:
        # Requests and their transitions are on the audit log, whatever their origin.
        return

    @admin.action(description="Approve", permissions=["approve"])
    def approve(self, request: HttpRequest, queryset: QuerySet[RestoreRequest]) -> None:
        self._decide(request, queryset, transitions.approve, "approved")

    @admin.action(description="Reject", permissions=["approve"])
    def reject(self, request: HttpRequest, queryset: QuerySet[RestoreRequest]) -> None:
        self._decide(request, queryset, transitions.reject, "rejected")

    @admin.action(description="Cancel, also while the machine is at work", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[RestoreRequest]) -> None:
        self._decide(request, queryset, transitions.cancel, "cancelled")

    def _decide(
        self, request: HttpRequest, queryset: QuerySet[RestoreRequest], decide: Callable[..., None], word: str
    ) -> None:
        count = 0
        for row in queryset.select_related("source__machine", "target"):
            try:
                decide(row, actor=log.person(request.user), now=self.now)
                count += 1
            except UsageError as error:
                self.message_user(request, f"{row}: {error.message}", messages.ERROR)
        if count:
            self.message_user(request, f"{count} {word}.", messages.SUCCESS)

    @admin.display(description="state")
    def status(self, row: RestoreRequest) -> SafeString:
        state = RequestState(row.state)
        return format_html('<span class="mark mark-{}">{}</span>', _COLOURS.get(state, "off"), state.label)

    @admin.display(description="machine", ordering="source__machine__unit_name")
    def machines(self, row: RestoreRequest) -> str:
        of, onto = presentation.change_link(row.source.machine), presentation.change_link(row.target)
        return format_html("{} onto {}", of, onto) if row.is_onto_another_machine else of

    @admin.display(description="by, approved by")
    def people(self, row: RestoreRequest) -> str:
        return f"{row.requested_by}, {' and '.join(row.approvers) or presentation.NOTHING}"

    @admin.display(description="paths")
    def path_list(self, row: RestoreRequest) -> str:
        return "\n".join(description.path_text(path) for path in row.paths) or "the whole source"

    @admin.display(description="approvals")
    def approvals(self, row: RestoreRequest) -> str:
        given = ", ".join(row.approvers) or "none"
        return f"{given} ({row.get_approvals_needed_display()} needed)"

    @admin.display(description="expires")
    def expires(self, row: RestoreRequest) -> str:
        return presentation.NOTHING if row.state in ENDED else presentation.moment(row.date_expires, now=self.now)
