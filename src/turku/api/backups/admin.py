"""The admin pages of sources and runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from turku.api.audit import log
from turku.api.audit.models import AuditEntry
from turku.api.backups import health
from turku.api.backups.backup_now import back_up_now
from turku.api.backups.models import BackupRun, Source, SourceChange
from turku.api.backups.of_source import OfSource
from turku.api.backups.search import matching_runs, matching_sources
from turku.api.backups.source_change_admin import SourceChangeAdmin
from turku.api.fleet.health import Mark
from turku.api.site import presentation
from turku.api.site.model_admin import MarkFilter, RegisteredAdmin, TurkuModelAdmin

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
    *("last_backup", "next_backup", "failure_count", "falls_back"),
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
    list_select_related = ("machine",)
    actions = ("back_up_now", "enable", "disable")
    fieldsets = (
        (None, {"fields": ("name", "machine_link", "health", "active", "published")}),
        ("Declared by the machine", {"fields": _DECLARED}),
        ("State", {"fields": _STATE}),
    )
    readonly_fields = ("name", "machine_link", "health", "published", *_DECLARED, *_STATE)

    def get_queryset(self, _request: HttpRequest) -> QuerySet[Source]:
        return health.sources(now=self.now)

    def matches(self, words: Sequence[str]) -> Q:
        return matching_sources(words)

    @admin.display(description="one file system", boolean=True)
    def stays_on_one_file_system(self, source: Source) -> bool:
        return source.one_file_system

    @admin.action(description="Back up now", permissions=["change"])
    def back_up_now(self, request: HttpRequest, queryset: QuerySet[Source]) -> None:
        keys = list(queryset.values_list("pk", flat=True))
        count = back_up_now(Source.objects.filter(pk__in=keys), actor=log.person(request.user), now=self.now)
        self.message_user(request, f"{count} sources are due now; their machines' next pings start them.")

    @admin.display(description="health", ordering="mark")
    def health(self, row: Any) -> SafeString:
        mark = presentation.mark(row.mark)
        if row.mark != Mark.FALLING_BACK:
            return mark
        return format_html("{} {}", mark, presentation.shortened(row.fallback_reason))

    @admin.display(description="machine", ordering="machine__unit_name")
    def machine_link(self, row: Source) -> str:
        return presentation.change_link(row.machine)

    @admin.display(description="last good backup", ordering="date_last_backed_up")
    def last_backup(self, row: Source) -> str:
        return presentation.moment(row.date_last_backed_up, now=self.now)

    @admin.display(description="next backup", ordering="date_next_backup")
    def next_backup(self, row: Source) -> str:
        return presentation.due(row.date_next_backup, now=self.now)

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

    list_display = ("reported", "result", "source_link", "machine_link", "storage_link", "duration", "made", "snapshot")
    list_filter = ("success", "strategy", "storage")
    search_fields = ("snapshot", "source__name", "source__machine__unit_name", "source__machine__uuid")
    sortable_by = ("reported",)
    linked_lookups = ("source__machine__id__exact",)
    list_select_related = ("source__machine", "storage")
    fields = (
        *("date", "result", "source_link", "machine_link", "storage_link"),
        *("snapshot", "strategy", "strategy_reason", "date_begin", "date_end", "duration", "summary"),
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
        return presentation.mark(Mark.OK if row.success else Mark.FAILED)

    @admin.display(description="strategy", ordering="strategy")
    def made(self, row: BackupRun) -> SafeString | str:
        words = row.get_strategy_display() or presentation.NOTHING
        if not row.strategy_reason:
            return words
        return format_html("{}: {}", words, presentation.shortened(row.strategy_reason))

    @admin.display(description="duration")
    def duration(self, row: BackupRun) -> str:
        if row.date_begin is None or row.date_end is None:
            return presentation.NOTHING
        return presentation.length(row.date_end - row.date_begin)
