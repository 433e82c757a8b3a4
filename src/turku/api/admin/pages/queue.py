"""The admin pages of the queue: slots of storages, their holders, and waiting machines."""

from datetime import datetime
from operator import attrgetter
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Count, F, IntegerField, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce
from django.http import HttpRequest

from turku.api.admin import columns
from turku.api.admin.model_admin import TurkuModelAdmin
from turku.api.queue import capacity, leases, waiting_machines
from turku.api.queue.models import Slot, StorageSlots, WaitingMachine, is_held_condition
from turku.errors import InvalidValue
from turku.policy import queue


class StorageSlotsForm(forms.ModelForm):  # type: ignore[type-arg]  # generic in Django's type stubs only
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
class StorageSlotsAdmin(TurkuModelAdmin):
    """The number of sessions that a storage takes at once. The operator can only lower the storage's number."""

    form = StorageSlotsForm
    list_display = ("storage", "counts", "running", "reserved", "waiting", "slots", "first_slots", "reported_slots")
    search_fields = ("storage__name",)
    list_select_related = ("storage",)
    fields = ("storage_link", "counts", "reported_slots", "slots", "first_slots", "slots_link", "waiting_link")
    readonly_fields = ("storage_link", "counts", "reported_slots", "slots_link", "waiting_link")
    forbidden = ("add", "delete")
    storage_link = columns.link("storage", "storage")
    running = columns.list_link("running", Slot, "storage", attrgetter("running_count"), state="running")
    reserved = columns.list_link("reserved", Slot, "storage", attrgetter("reserved_count"), state="reserved")
    waiting = columns.list_link("waiting", WaitingMachine, "storage", attrgetter("waiting_count"))
    slots_link = columns.list_link("holders", Slot, "storage", "all slots")
    waiting_link = columns.list_link("waiting machines", WaitingMachine, "storage", "the queue")

    def get_queryset(self, _request: HttpRequest) -> QuerySet[StorageSlots]:
        now = self.now
        taken = Slot.objects.filter(is_held_condition(now=now), storage=OuterRef("storage"))
        waiting = waiting_machines.asking_machines(now=now).filter(storage=OuterRef("storage"))
        return StorageSlots.objects.annotate(
            running_count=_count(taken.filter(date_begun__isnull=False), "storage"),
            reserved_count=_count(taken.filter(date_begun=None), "storage"),
            waiting_count=_count(waiting, "storage"),
        )

    def save_model(self, request: HttpRequest, obj: StorageSlots, form: Any, change: bool) -> None:  # noqa: FBT001  (Django's signature)
        super().save_model(request, obj, form, change)
        capacity.update_slots(obj)

    @admin.display(description="effective slots")
    def counts(self, row: StorageSlots) -> str:
        sizes = capacity.lane_sizes(row)
        return f"{sizes[queue.Lane.REGULAR]} + {sizes[queue.Lane.FIRST]} for first backups"


def _count(rows: QuerySet[Any], group: str) -> Coalesce:
    """Return the number of rows that refer to the outer row by ``group``."""
    counted = rows.order_by().values(group).annotate(rows=Count("pk")).values("rows")
    return Coalesce(Subquery(counted, output_field=IntegerField()), Value(0))


def _states(now: datetime) -> dict[str, tuple[str, Q]]:
    taken = is_held_condition(now=now)
    return {
        "running": ("running", taken & Q(date_begun__isnull=False)),
        "reserved": ("reserved", taken & Q(date_begun=None)),
        "lapsed": ("lapsed", leases.lapsed(now=now)),
        "free": ("free", Q(machine=None)),
    }


@admin.register(Slot)
class SlotAdmin(TurkuModelAdmin):
    """The slots and their holders. The operator can end a lease."""

    list_display = ("place", "state", "machine_link", "taken", "begun", "heartbeat", "expires")
    list_display_links = None
    list_filter = (columns.condition_filter("state", "state", _states), "lane", "storage")
    search_fields = ("machine__uuid", "machine__unit_name", "storage__name")
    sortable_by = ()
    list_select_related = ("storage", "machine")
    linked_lookups = ("storage__id__exact",)
    actions = ("end_lease",)
    forbidden = ("add", "delete")
    place = columns.text("slot", str)
    machine_link = columns.link("machine", "machine")
    taken = columns.moment("taken", "date_taken")
    begun = columns.moment("begun", "date_begun")
    heartbeat = columns.moment("last heartbeat", "date_heartbeat")
    expires = columns.moment("expires", "date_expires")

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

    @admin.display(description="state")
    def state(self, row: Slot) -> str:
        if row.is_held(self.now):
            state = "reserved" if row.date_begun is None else "running"
        else:
            state = "free" if row.machine is None else "lapsed"
        return f"{state}, retired" if row.retired else state


@admin.register(WaitingMachine)
class WaitingMachineAdmin(TurkuModelAdmin):
    """The queue of machines for a slot, with their position."""

    list_display = ("machine_link", "storage", "lane", "position", "due", "since", "asked", "deadline", "no_show")
    list_display_links = None
    list_filter = ("lane", "storage")
    search_fields = ("machine__uuid", "machine__unit_name", "storage__name")
    sortable_by = ()
    list_select_related = ("storage", "machine")
    linked_lookups = ("storage__id__exact",)
    forbidden = ("add", "change", "delete")
    machine_link = columns.link("machine", "machine")
    position = columns.text("position", "place")
    due = columns.moment("due since", "date_due")
    since = columns.moment("waiting since", "date_queued")
    asked = columns.moment("asked last", "date_asked")
    deadline = columns.moment("grace period ends", "date_deadline")
    no_show = columns.moment("no-show", "date_no_show")

    def get_queryset(self, _request: HttpRequest) -> QuerySet[WaitingMachine]:
        alive = waiting_machines.asking_machines(now=self.now)
        ahead = alive.filter(
            storage=OuterRef("storage"), lane=OuterRef("lane"), date_deadline__lt=OuterRef("date_deadline")
        )
        return alive.annotate(place=_count(ahead, "storage") + Value(1)).order_by("storage", "lane", F("date_deadline"))
