"""The admin pages of damage, drills and integrity states."""

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from turku.api.admin import columns, presentation
from turku.api.admin.model_admin import ListActionAdmin, SourceColumns
from turku.api.backups.search import matching_sources
from turku.api.integrity.models import OPEN, RESOLVED, Damage, Drill, IntegrityState
from turku.api.status.marks import Mark
from turku.core import units

_NEEDS_ACTION = columns.condition_filter(
    "health", "open", lambda _now: {"open": ("needs action", OPEN), "over": ("repaired, gone or acknowledged", ~OPEN)}
)


class _ReportedAdmin(SourceColumns, ListActionAdmin):
    """Rows that storages report, each about a source."""

    list_select_related = ["source__machine", "storage"]
    linked_lookups = ("source__machine__id__exact", "source__id__exact")
    search_fields = ("source__name", "source__machine__unit_name", "source__machine__uuid")
    matching = staticmethod(lambda words: matching_sources(words, "source__"))


@admin.register(Damage)
class DamageAdmin(_ReportedAdmin):
    """Damaged files. An operator acknowledges those that cannot be repaired."""

    list_display = ("found", "health", "path_short", "source_link", "machine_link", "storage_link", "kind", "state")
    list_filter = (_NEEDS_ACTION, "storage")
    sortable_by = ("found",)
    found = columns.moment("found", "date_found", "date_found")
    actions = ("acknowledge",)
    fields = (
        *("date_found", "date_changed", "health", "source_link", "machine_link", "storage_link", "path"),
        *("kind", "state", "checksum", "snapshot_count", "snapshot_names", "date_acknowledged", "acknowledged_by"),
    )
    readonly_fields = fields

    @admin.action(description="Acknowledge: known, nothing more to do", permissions=["change"])
    def acknowledge(self, request: HttpRequest, queryset: QuerySet[Damage]) -> None:
        now = self.now
        rows = [row for row in queryset.select_related("source") if row.is_open]
        for row in rows:
            self.note_values(request, {"date_acknowledged": None}, {"date_acknowledged": now})
            row.date_acknowledged, row.acknowledged_by = now, request.user.get_username()
            with transaction.atomic():
                row.save(update_fields=["date_acknowledged", "acknowledged_by"])
                self.log_change(request, row, "Acknowledged.")
        self.message_user(request, f"{len(rows)} acknowledged.", messages.SUCCESS)

    @admin.display(description="health")
    def health(self, row: Damage) -> SafeString:
        if row.is_open:
            return presentation.mark(Mark.DAMAGED)
        return presentation.mark(Mark.OK if row.state in RESOLVED else Mark.OFF)

    @admin.display(description="path")
    def path_short(self, row: Damage) -> str:
        return row.path if len(row.path) <= 100 else f"...{row.path[-97:]}"

    @admin.display(description="snapshots affected")
    def snapshot_names(self, row: Damage) -> str:
        more = row.snapshot_count - len(row.snapshots)
        return ", ".join([*row.snapshots, *([f"and {more} more"] if more > 0 else [])])


@admin.register(Drill)
class DrillAdmin(_ReportedAdmin):
    """The record of restore drills."""

    list_display = ("reported", "result", "source_link", "machine_link", "storage_link", "files", "duration")
    list_filter = ("success", "storage")
    sortable_by = ("reported",)
    fields = (
        *("date", "result", "source_link", "machine_link", "storage_link", "snapshot"),
        *("files", "size_bytes", "date_begin", "date_end", "duration", "summary"),
    )
    readonly_fields = fields
    reported = columns.moment("reported", "date", "date")
    duration = columns.text("duration", lambda row: units.duration(row.date_end - row.date_begin))

    @admin.display(description="result")
    def result(self, row: Drill) -> SafeString:
        return presentation.mark(Mark.OK if row.success else Mark.FAILED)


@admin.register(IntegrityState)
class IntegrityStateAdmin(_ReportedAdmin):
    """The integrity of each source."""

    list_display = ("source_link", "machine_link", "is_proven", "verified", "oldest_check", "drilled")
    list_select_related = ["source__machine"]
    sortable_by = ("verified", "drilled")
    fields = (
        *("source_link", "machine_link", "is_proven", "date_verified", "verified_files", "verified_bytes"),
        *("date_oldest_check", "date_drilled", "date_proven_until", "drill_succeeded"),
    )
    readonly_fields = fields
    verified = columns.moment("last verified", "date_verified", "date_verified")
    oldest_check = columns.moment("all files verified since", "date_oldest_check")
    drilled = columns.moment("last good drill", "date_drilled", "date_drilled")

    @admin.display(description="proven", boolean=True)
    def is_proven(self, row: IntegrityState) -> bool:
        return row.date_proven_until is not None and row.date_proven_until >= self.now
