"""The admin page of sources."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from turku.api.admin import presentation
from turku.api.admin.model_admin import MarkFilter, NoAddAdmin
from turku.api.audit import log
from turku.api.audit.models import AuditEntry
from turku.api.backups import operator_actions
from turku.api.backups.models import BackupRun, Source, SourceChange
from turku.api.backups.next_backup import next_due
from turku.api.backups.operator_actions import back_up_now
from turku.api.backups.search import matching_sources
from turku.api.status import source_marks, source_reasons
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


class SourceMarkFilter(MarkFilter):
    """The marks that a source can have."""

    conditions = staticmethod(lambda now: source_marks.conditions(now=now))


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
class SourceAdmin(NoAddAdmin):
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
    list_filter = (SourceMarkFilter, "active", "published", "snapshot_mode", "machine__storage")
    search_fields = ("name", "path", "comment", "machine__unit_name", "machine__uuid")
    sortable_by = ("last_backup", "next_backup")
    list_select_related = ("machine__storage",)
    actions = ("back_up_now", "confirm_withdrawal", "enable", "disable")
    fieldsets = (
        (None, {"fields": ("name", "machine_link", "health", "reason", "next_step", "active", "published")}),
        ("Declared by the machine", {"fields": _DECLARED}),
        ("State", {"fields": _STATE}),
    )
    readonly_fields = ("name", "machine_link", "health", "reason", "next_step", "published", *_DECLARED, *_STATE)

    def get_queryset(self, _request: HttpRequest) -> QuerySet[Source]:
        return source_marks.sources(now=self.now)

    def matches(self, words: Sequence[str]) -> Q:
        return matching_sources(words)

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
        why = source_reasons.reason(row, mark, now=self.now)
        return presentation.mark_with_reason(mark.value, why, source_reasons.next_step(row, mark))

    @admin.display(description="reason")
    def reason(self, row: Any) -> str:
        return source_reasons.reason(row, Mark(row.mark), now=self.now) or presentation.NOTHING

    @admin.display(description="next step")
    def next_step(self, row: Any) -> str:
        return source_reasons.next_step(row, Mark(row.mark)) or presentation.NOTHING

    @admin.display(description="last failure")
    def last_failure(self, row: Source) -> str:
        return row.failure_reason or presentation.NOTHING

    @admin.display(description="findings")
    def findings(self, row: Source) -> str:
        return "\n".join(row.findings) or presentation.NOTHING

    @admin.display(description="incomplete")
    def incompleteness(self, row: Source) -> str:
        return source_reasons.incompleteness(row) or presentation.NOTHING

    @admin.display(description="machine", ordering="machine__unit_name")
    def machine_link(self, row: Source) -> str:
        return presentation.change_link(row.machine)

    @admin.display(description="last good backup", ordering="date_last_backed_up")
    def last_backup(self, row: Source) -> str:
        return presentation.moment(row.date_last_backed_up, now=self.now)

    @admin.display(description="next backup", ordering="date_next_backup")
    def next_backup(self, row: Source) -> str:
        return presentation.due(next_due(row, now=self.now), now=self.now)

    @admin.display(description="full each time")
    def falls_back(self, row: Source) -> str:
        if not row.fallback_count:
            return presentation.NOTHING
        return f"{row.fallback_count} in a row: {row.fallback_reason}"

    @admin.display(description="weakening changes")
    def weakenings_link(self, row: Source) -> SafeString:
        return presentation.list_link(SourceChange, "all changes", source__id__exact=row.pk)

    @admin.display(description="audit log")
    def audit_link(self, row: Source) -> SafeString:
        return presentation.list_link(AuditEntry, "what happened to it", subject_key=log.subject_key(row))

    @admin.display(description="backup runs")
    def runs_link(self, row: Source) -> SafeString:
        return presentation.list_link(BackupRun, "all runs", source__id__exact=row.pk)
