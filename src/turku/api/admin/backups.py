"""The admin pages of sources and runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from turku.api.admin import presentation
from turku.api.admin.back_up_now import tell_back_up_now
from turku.api.admin.model_admin import MarkFilter, RegisteredAdmin, TurkuModelAdmin
from turku.api.admin.source_changes import SourceChangeAdmin
from turku.api.admin.source_columns import OfSource
from turku.api.audit import log
from turku.api.audit.models import AuditEntry
from turku.api.backups import report, withdrawal
from turku.api.backups.models import BackupRun, Source, SourceChange
from turku.api.backups.next_backup import bounded
from turku.api.backups.search import matching_runs, matching_sources
from turku.api.status import backups as health
from turku.api.status import reasons
from turku.api.status.marks import Mark

__all__ = ["BackupRunAdmin", "SourceAdmin", "SourceChangeAdmin"]


class SourceMarkFilter(MarkFilter):
    """The marks that a source can have."""

    conditions = staticmethod(lambda now: health.source_conditions(now=now))


_DECLARED = (
    *("path", "comment", "frequency", "retention", "bwlimit", "snapshot_mode", "filter", "exclude"),
    *("preserve_hard_links", "shared_service", "large_rotating_files", "large_modifying_files"),
    *("stays_on_one_file_system", "other_options"),
)
_STATE = (
    *("last_backup", "next_backup", "date_expected", "failure_count", "last_failure"),
    *("suspicion", "incompleteness", "falls_back"),
    *("runs_link", "weakenings_link", "audit_link", "date_added"),
)


@admin.register(Source)
class SourceAdmin(RegisteredAdmin):
    """Sources; the operator switches them, all else is the machine's own word."""

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
        (None, {"fields": ("name", "machine_link", "health", "why", "what_to_do", "active", "published")}),
        ("Declared by the machine", {"fields": _DECLARED}),
        ("State", {"fields": _STATE}),
    )
    readonly_fields = ("name", "machine_link", "health", "why", "what_to_do", "published", *_DECLARED, *_STATE)

    def get_queryset(self, _request: HttpRequest) -> QuerySet[Source]:
        return health.sources(now=self.now)

    def matches(self, words: Sequence[str]) -> Q:
        return matching_sources(words)

    @admin.display(description="one file system", boolean=True)
    def stays_on_one_file_system(self, source: Source) -> bool:
        return source.one_file_system

    @admin.action(description="Back up now", permissions=["change"])
    def back_up_now(self, request: HttpRequest, queryset: QuerySet[Source]) -> None:
        chosen = Source.objects.filter(pk__in=list(queryset.values_list("pk", flat=True)))
        tell_back_up_now(self, request, chosen, now=self.now)

    @admin.action(description="Confirm withdrawal: meant to be backed up no more", permissions=["change"])
    def confirm_withdrawal(self, request: HttpRequest, queryset: QuerySet[Source]) -> None:
        chosen = Source.objects.filter(pk__in=list(queryset.values_list("pk", flat=True)))
        count = withdrawal.confirm(chosen, actor=log.person(request.user), now=self.now)
        self.message_user(request, f"{count} confirmed.", messages.SUCCESS)

    @admin.display(description="health", ordering="mark")
    def health(self, row: Any) -> SafeString:
        mark = Mark(row.mark)
        why = reasons.reason(row, mark, now=self.now)
        return presentation.mark_with_reason(mark.value, why, reasons.next_step(row, mark))

    @admin.display(description="why")
    def why(self, row: Any) -> str:
        return reasons.reason(row, Mark(row.mark), now=self.now) or presentation.NOTHING

    @admin.display(description="what to do next")
    def what_to_do(self, row: Any) -> str:
        return reasons.next_step(row, Mark(row.mark)) or presentation.NOTHING

    @admin.display(description="last failure")
    def last_failure(self, row: Source) -> str:
        return row.failure_reason or presentation.NOTHING

    @admin.display(description="reasons of suspicion")
    def suspicion(self, row: Source) -> str:
        return "\n".join(row.suspicious_signs) or presentation.NOTHING

    @admin.display(description="incomplete")
    def incompleteness(self, row: Source) -> str:
        return reasons.incompleteness(row) or presentation.NOTHING

    @admin.display(description="machine", ordering="machine__unit_name")
    def machine_link(self, row: Source) -> str:
        return presentation.change_link(row.machine)

    @admin.display(description="last good backup", ordering="date_last_backed_up")
    def last_backup(self, row: Source) -> str:
        return presentation.moment(row.date_last_backed_up, now=self.now)

    @admin.display(description="next backup", ordering="date_next_backup")
    def next_backup(self, row: Source) -> str:
        return presentation.due(bounded(row, now=self.now), now=self.now)

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


@admin.register(BackupRun)
class BackupRunAdmin(OfSource, TurkuModelAdmin):
    """The record of backup runs, to be read only."""

    list_display = (
        "reported",
        "result",
        "source_link",
        "machine_link",
        "storage_link",
        "duration",
        "made",
        "snapshot",
        "unread",
    )
    list_filter = ("success", "strategy", "storage")
    search_fields = ("snapshot", "source__name", "source__machine__unit_name", "source__machine__uuid")
    sortable_by = ("reported",)
    linked_lookups = ("source__machine__id__exact",)
    list_select_related = ("source__machine", "storage")
    fields = (
        *("date", "result", "source_link", "machine_link", "storage_link"),
        *("snapshot", "strategy", "strategy_reason", "date_begin", "date_end", "duration"),
        *("missing_files", "stale_files", "warning_count", "first_warnings", "summary"),
    )
    readonly_fields = fields

    def has_add_permission(self, _request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, _request: HttpRequest, _row: Model | None = None) -> bool:
        return False

    def matches(self, words: Sequence[str]) -> Q:
        return matching_runs(words)

    @admin.display(description="reported", ordering="date")
    def reported(self, row: BackupRun) -> str:
        return presentation.moment(row.date, now=self.now)

    @admin.display(description="result", ordering="success")
    def result(self, row: BackupRun) -> SafeString:
        if not row.success:
            return presentation.mark_with_reason(Mark.FAILED, report.first_line(row.summary))
        is_incomplete = bool(row.missing_files or row.stale_files)
        return presentation.mark(Mark.INCOMPLETE if is_incomplete else Mark.OK)

    @admin.display(description="strategy", ordering="strategy")
    def made(self, row: BackupRun) -> SafeString | str:
        words = row.get_strategy_display() or presentation.NOTHING
        if not row.strategy_reason:
            return words
        return format_html("{}: {}", words, presentation.shortened(row.strategy_reason))

    @admin.display(description="not read")
    def unread(self, row: BackupRun) -> str:
        kinds = ((row.missing_files, "missing"), (row.stale_files, "stale"))
        return ", ".join(f"{count:,} {word}" for count, word in kinds if count) or presentation.NOTHING

    @admin.display(description="first warnings")
    def first_warnings(self, row: BackupRun) -> str:
        more = row.warning_count - len(row.warnings)
        return "\n".join([*row.warnings, *([f"and {more:,} more"] if more > 0 else [])]) or presentation.NOTHING

    @admin.display(description="duration")
    def duration(self, row: BackupRun) -> str:
        if row.date_begin is None or row.date_end is None:
            return presentation.NOTHING
        return presentation.length(row.date_end - row.date_begin)
