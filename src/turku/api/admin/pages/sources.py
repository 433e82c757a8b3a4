"""The admin page of sources."""

from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from turku.api.admin import columns, presentation
from turku.api.admin.model_admin import SwitchableAdmin
from turku.api.audit import log
from turku.api.backups import operator_actions
from turku.api.backups.models import BackupRun, Source, SourceChange
from turku.api.backups.next_backup import next_due
from turku.api.backups.operator_actions import back_up_now
from turku.api.backups.search import matching_sources
from turku.api.status import reasons, source_marks
from turku.api.status.fleet_marks import silent_sentence
from turku.api.status.marks import Mark


def back_up_now_and_report(page: Any, request: HttpRequest, sources: QuerySet[Source], *, now: datetime) -> None:
    """Make the sources due, and show their number and the machines that are silent."""
    count = back_up_now(sources, actor=log.person(request.user), now=now)
    due = "1 source is due now; its machine's next ping starts it."
    if count != 1:
        due = f"{count} sources are due now; their machines' next pings start them."
    page.message_user(request, due)
    silent = silent_sentence(sources, now=now)
    if silent:
        page.message_user(request, silent, messages.WARNING)


_HEALTH = columns.mark_filter(source_marks.conditions)
_DECLARED = (
    *("path", "comment", "frequency", "retention", "bwlimit", "snapshot_mode", "filter", "exclude"),
    *("preserve_hard_links", "shared_service", "large_rotating_files", "large_modifying_files"),
    *("stays_on_one_file_system", "other_options"),
)
_STATE = (
    *("last_backup", "next_backup", "date_expected", "failure_count", "last_failure"),
    *("findings", "incompleteness", "falls_back"),
    *("runs_link", "weakenings_link", "audit_link", "date_added"),
)


@admin.register(Source)
class SourceAdmin(SwitchableAdmin):
    """Sources. The operator switches them. Everything else comes from the machine."""

    list_display = (
        "name",
        "machine_link",
        "health",
        "last_backup",
        "next_backup",
        "failure_count",
        "path",
        "frequency",
    )
    list_filter = (
        columns.mark_filter(source_marks.conditions),
        "active",
        "published",
        "snapshot_mode",
        "machine__storage",
    )
    search_fields = ("name", "path", "comment", "machine__unit_name", "machine__uuid")
    sortable_by = ("last_backup", "next_backup")
    list_select_related = ("machine__storage",)
    actions = ("back_up_now", "confirm_withdrawal", "enable", "disable")
    fieldsets = (
        (None, {"fields": ("name", "machine_link", "health", "reason", "next_step", "active", "published")}),
        ("Declared by the machine", {"fields": _DECLARED}),
        ("State", {"fields": _STATE}),
    )
    readonly_fields = columns.all_but(fieldsets, "active")
    forbidden = ("add",)
    matching = staticmethod(matching_sources)
    machine_link = columns.link("machine", "machine", "machine__unit_name")
    last_backup = columns.moment("last good backup", "date_last_backed_up", "date_last_backed_up")
    last_failure = columns.text("last failure", "failure_reason")
    findings = columns.text("findings", lambda row: "\n".join(row.findings))
    incompleteness = columns.text("incomplete", reasons.incompleteness)
    weakenings_link = columns.list_link("weakening changes", SourceChange, "source", "all changes")
    audit_link = columns.text("audit log", presentation.audit_link)
    runs_link = columns.list_link("backup runs", BackupRun, "source", "all runs")

    def get_queryset(self, _request: HttpRequest) -> QuerySet[Source]:
        return source_marks.sources(now=self.now)

    @admin.display(description="one file system", boolean=True)
    def stays_on_one_file_system(self, source: Source) -> bool:
        return source.one_file_system

    @admin.action(description="Back up now", permissions=["change"])
    def back_up_now(self, request: HttpRequest, queryset: QuerySet[Source]) -> None:
        chosen = Source.objects.filter(pk__in=list(queryset.values_list("pk", flat=True)))
        back_up_now_and_report(self, request, chosen, now=self.now)

    @admin.action(description="Confirm withdrawal: backups end on purpose", permissions=["change"])
    def confirm_withdrawal(self, request: HttpRequest, queryset: QuerySet[Source]) -> None:
        chosen = Source.objects.filter(pk__in=list(queryset.values_list("pk", flat=True)))
        count = operator_actions.confirm_withdrawal(chosen, actor=log.person(request.user), now=self.now)
        self.message_user(request, f"{count} confirmed.", messages.SUCCESS)

    @admin.display(description="health", ordering="mark")
    def health(self, row: Any) -> SafeString:
        mark = Mark(row.mark)
        why = reasons.source_reason(row, mark, now=self.now)
        return presentation.mark_with_reason(mark.value, why, reasons.source_next_step(row, mark))

    @admin.display(description="reason")
    def reason(self, row: Any) -> str:
        return reasons.source_reason(row, Mark(row.mark), now=self.now) or presentation.NOTHING

    @admin.display(description="next step")
    def next_step(self, row: Any) -> str:
        return reasons.source_next_step(row, Mark(row.mark)) or presentation.NOTHING

    @admin.display(description="next backup", ordering="date_next_backup")
    def next_backup(self, row: Source) -> str:
        return presentation.due(next_due(row, now=self.now), now=self.now)

    @admin.display(description="full each time")
    def falls_back(self, row: Source) -> str:
        if not row.fallback_count:
            return presentation.NOTHING
        return f"{row.fallback_count} in a row: {row.fallback_reason}"
