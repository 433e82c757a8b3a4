"""The admin pages of the queue: slots of storages, their holders, and waiting machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Count, F, IntegerField, Model, OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce
from django.http import HttpRequest

from turku.api.admin import presentation
from turku.api.admin.model_admin import NoAddDeleteAdmin
from turku.api.queue import capacity, leases, waiting_machines
from turku.api.queue.models import Slot, StorageSlots, WaitingMachine
from turku.core.clock import SYSTEM_CLOCK
from turku.errors import InvalidValue
from turku.policy import queue

if TYPE_CHECKING:
    # Generic in Django's type stubs only.
    _StorageSlotsModelForm = forms.ModelForm[StorageSlots]
else:
    _StorageSlotsModelForm = forms.ModelForm


class StorageSlotsForm(_StorageSlotsModelForm):
    """Both numbers, checked together."""

    class Meta:
        model = StorageSlots
        fields = ("slots", "first_slots")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        settings = StorageSlots(
            slots=cleaned.get("slots"),
            first_slots=cleaned.get("first_slots"),
            reported_slots=self.instance.reported_slots,
        )
        if not self.errors and settings.first_slots is not None:
            try:
                queue.lanes(settings.effective, settings.first_slots)
            except InvalidValue as error:
                raise ValidationError({"first_slots": error.sentence}) from None
        return cleaned


@admin.register(StorageSlots)
class StorageSlotsAdmin(NoAddDeleteAdmin):
    """The number of sessions that a storage takes at once. The operator can only lower the storage's number."""

    form = StorageSlotsForm
    list_display = ("storage", "counts", "running", "reserved", "waiting", "slots", "first_slots", "reported_slots")
    search_fields = ("storage__name",)
    list_select_related = ("storage",)
    fields = ("storage_link", "counts", "reported_slots", "slots", "first_slots", "slots_link", "waiting_link")
    readonly_fields = ("storage_link", "counts", "reported_slots", "slots_link", "waiting_link")

    def get_queryset(self, _request: HttpRequest) -> QuerySet[StorageSlots]:
        now = self.now
        held = Slot.objects.filter(storage=OuterRef("storage"), machine__isnull=False, date_expires__gt=now)
        waiting = waiting_machines.asking_machines(now=now).filter(storage=OuterRef("storage"))
        return StorageSlots.objects.annotate(
            running_count=_count(held.filter(date_begun__isnull=False), "storage"),
            reserved_count=_count(held.filter(date_begun=None), "storage"),
            waiting_count=_count(waiting, "storage"),
        )

    def save_model(self, request: HttpRequest, obj: StorageSlots, form: Any, change: bool) -> None:  # noqa: FBT001  (Django's signature)
        super().save_model(request, obj, form, change)
        capacity.update_slots(obj)

    @admin.display(description="storage")
    def storage_link(self, row: StorageSlots) -> str:
        return presentation.change_link(row.storage)

    @admin.display(description="effective slots")
    def counts(self, row: StorageSlots) -> str:
        sizes = capacity.lane_sizes(row)
        return f"{sizes[queue.Lane.REGULAR]} + {sizes[queue.Lane.FIRST]} for first backups"

    @admin.display(description="running")
    def running(self, row: Any) -> str:
        return presentation.list_link(Slot, row.running_count, storage__id__exact=row.pk, state="running")

    @admin.display(description="reserved")
    def reserved(self, row: Any) -> str:
        return presentation.list_link(Slot, row.reserved_count, storage__id__exact=row.pk, state="reserved")

    @admin.display(description="waiting")
    def waiting(self, row: Any) -> str:
        return presentation.list_link(WaitingMachine, row.waiting_count, storage__id__exact=row.pk)

    @admin.display(description="holders")
    def slots_link(self, row: StorageSlots) -> str:
        return presentation.list_link(Slot, "all slots", storage__id__exact=row.pk)

    @admin.display(description="waiting machines")
    def waiting_link(self, row: StorageSlots) -> str:
        return presentation.list_link(WaitingMachine, "the queue", storage__id__exact=row.pk)


def _count(rows: QuerySet[Any], group: str) -> Coalesce:
    """Return the number of rows that refer to the outer row by ``group``."""
    counted = rows.order_by().values(group).annotate(rows=Count("pk")).values("rows")
    return Coalesce(Subquery(counted, output_field=IntegerField()), Value(0))


class StateFilter(admin.SimpleListFilter):
    """A filter of slots by state."""

    title = "state"
    parameter_name = "state"

    def lookups(self, _request: HttpRequest, _model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state) for state in ("running", "reserved", "lapsed", "free")]

    def queryset(self, _request: HttpRequest, queryset: QuerySet[Slot]) -> QuerySet[Slot]:
        now = SYSTEM_CLOCK.now()
        held = queryset.filter(machine__isnull=False, date_expires__gt=now)
        if self.value() == "running":
            return held.filter(date_begun__isnull=False)
        if self.value() == "reserved":
            return held.filter(date_begun=None)
        if self.value() == "lapsed":
            return leases.lapsed(now=now)
        return queryset.filter(machine=None) if self.value() == "free" else queryset


@admin.register(Slot)
class SlotAdmin(NoAddDeleteAdmin):
    """The slots and their holders. The operator can end a lease."""

    list_display = ("place", "state", "machine_link", "taken", "begun", "heartbeat", "expires")
    list_display_links = None
    list_filter = (StateFilter, "lane", "storage")
    search_fields = ("machine__uuid", "machine__unit_name", "storage__name")
    sortable_by = ()
    list_select_related = ("storage", "machine")
    linked_lookups = ("storage__id__exact",)
    actions = ("end_lease",)

    @admin.action(description="End the lease: another machine may have the slot", permissions=["change"])
    def end_lease(self, request: HttpRequest, queryset: QuerySet[Slot]) -> None:
        count = 0
        for row in queryset.select_related("machine").exclude(machine=None):
            with transaction.atomic():
                if leases.free(row, now=self.now):
                    count += 1
                    self.note_values(request, {"machine": row.machine}, {"machine": None})
                    self.log_change(request, row, "Lease ended.")
        self.message_user(
            request, f"{count} leases ended. A running session continues without a slot.", messages.SUCCESS
        )

    @admin.display(description="slot")
    def place(self, row: Slot) -> str:
        return str(row)

    @admin.display(description="state")
    def state(self, row: Slot) -> str:
        if row.is_held(self.now):
            state = "reserved" if row.date_begun is None else "running"
        else:
            state = "free" if row.machine is None else "lapsed"
        return f"{state}, retired" if row.retired else state

    @admin.display(description="machine")
    def machine_link(self, row: Slot) -> str:
        return presentation.change_link(row.machine)

    @admin.display(description="taken")
    def taken(self, row: Slot) -> str:
        return presentation.moment(row.date_taken, now=self.now)

    @admin.display(description="begun")
    def begun(self, row: Slot) -> str:
        return presentation.moment(row.date_begun, now=self.now)

    @admin.display(description="last heartbeat")
    def heartbeat(self, row: Slot) -> str:
        return presentation.moment(row.date_heartbeat, now=self.now)

    @admin.display(description="expires")
    def expires(self, row: Slot) -> str:
        return presentation.moment(row.date_expires, now=self.now)


@admin.register(WaitingMachine)
class WaitingMachineAdmin(NoAddDeleteAdmin):
    """The queue of machines for a slot, with their position."""

    list_display = ("machine_link", "storage", "lane", "position", "due", "since", "asked", "deadline", "no_show")
    list_display_links = None
    list_filter = ("lane", "storage")
    search_fields = ("machine__uuid", "machine__unit_name", "storage__name")
    sortable_by = ()
    list_select_related = ("storage", "machine")
    linked_lookups = ("storage__id__exact",)

    def has_change_permission(self, _request: HttpRequest, _row: Model | None = None) -> bool:
        return False

    def get_queryset(self, _request: HttpRequest) -> QuerySet[WaitingMachine]:
        alive = waiting_machines.asking_machines(now=self.now)
        ahead = alive.filter(
            storage=OuterRef("storage"), lane=OuterRef("lane"), date_deadline__lt=OuterRef("date_deadline")
        )
        return alive.annotate(place=_count(ahead, "storage") + Value(1)).order_by("storage", "lane", F("date_deadline"))

    @admin.display(description="machine")
    def machine_link(self, row: WaitingMachine) -> str:
        return presentation.change_link(row.machine)

    @admin.display(description="position")
    def position(self, row: Any) -> int:
        place: int = row.place
        return place

    @admin.display(description="due since")
    def due(self, row: WaitingMachine) -> str:
        return presentation.moment(row.date_due, now=self.now)

    @admin.display(description="waiting since")
    def since(self, row: WaitingMachine) -> str:
        return presentation.moment(row.date_queued, now=self.now)

    @admin.display(description="asked last")
    def asked(self, row: WaitingMachine) -> str:
        return presentation.moment(row.date_asked, now=self.now)

    @admin.display(description="grace period ends")
    def deadline(self, row: WaitingMachine) -> str:
        return presentation.moment(row.date_deadline, now=self.now)

    @admin.display(description="no-show")
    def no_show(self, row: WaitingMachine) -> str:
        return presentation.moment(row.date_no_show, now=self.now)
