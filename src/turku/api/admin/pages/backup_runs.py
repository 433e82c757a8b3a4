"""The admin page of backup runs."""

from django.contrib import admin
from django.utils.html import format_html
from django.utils.safestring import SafeString

from turku.api.admin import columns, presentation
from turku.api.admin.model_admin import SourceColumns, TurkuModelAdmin
from turku.api.backups import runs
from turku.api.backups.models import BackupRun
from turku.api.backups.search import matching_runs
from turku.api.status.marks import Mark
from turku.core import units


@admin.register(BackupRun)
class BackupRunAdmin(SourceColumns, TurkuModelAdmin):
    """The record of backup runs, to be read only."""

    list_display = (
        *("reported", "result", "source_link", "machine_link", "storage_link"),
        *("duration", "made", "snapshot", "unread"),
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
    forbidden = ("add", "change")
    matching = staticmethod(matching_runs)
    reported = columns.moment("reported", "date", "date")

    @admin.display(description="result", ordering="success")
    def result(self, row: BackupRun) -> SafeString:
        if not row.success:
            return presentation.mark_with_reason(Mark.FAILED, runs.first_line(row.summary))
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
        return units.duration(row.date_end - row.date_begin)
