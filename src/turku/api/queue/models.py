"""The models of the queue. The row of a slot is also its lease: the machine in the row holds the slot."""

from datetime import datetime, timedelta

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from turku.api.fleet.models import Machine, Storage
from turku.policy.queue import DEFAULT_SLOTS, SLOTS_LIMIT, Lane
from turku.policy.timing.clock_agreement import COORDINATORS_TOLERANCE

LANES = [(Lane.REGULAR.value, "regular"), (Lane.FIRST.value, "first backups")]


LONGEST_LEASE = timedelta(hours=12)
"""The lease of a session without heartbeats, such as one of a storage of the existing system."""


def is_held_condition(*, now: datetime) -> Q:
    """Return a condition that a machine has the slot, equal to ``Slot.is_held``.

    A lease from a clock that was ahead would outlast all others, so it does not count.
    """
    return Q(
        machine__isnull=False, date_expires__gt=now, date_expires__lte=now + LONGEST_LEASE + COORDINATORS_TOLERANCE
    )


class StorageSlots(models.Model):
    """The number of sessions that a storage takes at once: the smaller of the operator's and the storage's number."""

    storage = models.OneToOneField(Storage, models.CASCADE, primary_key=True, related_name="slot_settings")
    slots = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(SLOTS_LIMIT)],
        help_text=f"Sessions at once, first backups included. Empty means the storage's number, or {DEFAULT_SLOTS}.",
    )
    first_slots = models.PositiveIntegerField(
        "slots for first backups",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(SLOTS_LIMIT)],
        help_text="The part of them for first backups. Empty means a quarter.",
    )
    reported_slots = models.PositiveIntegerField("slots reported by the storage", null=True, blank=True, editable=False)

    class Meta:
        ordering = ("storage__name",)
        verbose_name = verbose_name_plural = "storage slots"

    def __str__(self) -> str:
        return str(self.storage)

    @property
    def effective(self) -> int:
        """The number that counts."""
        return min((slots for slots in (self.slots, self.reported_slots) if slots is not None), default=DEFAULT_SLOTS)


class Slot(models.Model):
    """One slot of a storage, with its holder and the end of the lease."""

    storage = models.ForeignKey(Storage, models.CASCADE, related_name="slots")
    lane = models.CharField(max_length=8, choices=LANES)
    number = models.PositiveIntegerField()
    retired = models.BooleanField(default=False, help_text="There are fewer slots now. Nobody gets this one.")
    machine = models.ForeignKey(Machine, models.SET_NULL, null=True, blank=True, related_name="slots")
    date_taken = models.DateTimeField("taken", null=True, blank=True)
    date_begun = models.DateTimeField(
        "begun",
        null=True,
        blank=True,
        help_text="Empty while the slot is reserved for a machine that has not started yet.",
    )
    date_heartbeat = models.DateTimeField("last heartbeat", null=True, blank=True)
    date_expires = models.DateTimeField("expires", null=True, blank=True)
    date_freed = models.DateTimeField("freed", null=True, blank=True)
    date_last_begun = models.DateTimeField(null=True, blank=True, help_text="Start of the session that freed the slot.")

    class Meta:
        ordering = ("storage_id", "lane", "number")
        indexes = [models.Index(fields=("date_expires",), condition=~Q(machine=None), name="slot_expires")]
        constraints = [
            models.UniqueConstraint(fields=("storage", "lane", "number"), name="slot_number_unique"),
            models.UniqueConstraint(fields=("machine", "lane"), condition=~Q(machine=None), name="slot_machine_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.storage}, {self.get_lane_display()} {self.number + 1}"

    def is_held(self, now: datetime) -> bool:
        """Return True if a machine has the slot."""
        if self.machine_id is None or self.date_expires is None:
            return False
        return now < self.date_expires <= now + LONGEST_LEASE + COORDINATORS_TOLERANCE

    def free_since(self) -> datetime | None:
        """Return the moment since which a free slot is free, or None if it was never taken."""
        return self.date_freed if self.machine_id is None else self.date_expires

    def last_length(self) -> timedelta:
        """Return the length of the last session in a free slot."""
        begun = self.date_last_begun if self.machine_id is None else self.date_begun
        freed = self.free_since()
        return timedelta(0) if begun is None or freed is None else freed - begun


class WaitingMachine(models.Model):
    """A machine that asked, was due, and got no slot."""

    storage = models.ForeignKey(Storage, models.CASCADE, related_name="waiting")
    machine = models.ForeignKey(Machine, models.CASCADE, related_name="waiting")
    lane = models.CharField(max_length=8, choices=LANES)
    date_due = models.DateTimeField("due since")
    date_deadline = models.DateTimeField("grace period ends", help_text="The queue is ordered by it.")
    date_queued = models.DateTimeField("waiting since")
    date_asked = models.DateTimeField("asked last")
    date_no_show = models.DateTimeField(
        "no-show", null=True, blank=True, help_text="Date on which it let a reserved slot lapse."
    )

    class Meta:
        ordering = ("storage_id", "lane", "date_deadline")
        indexes = [
            models.Index(fields=("storage", "lane", "date_deadline"), name="waiting_order"),
            models.Index(fields=("storage", "date_asked"), name="waiting_asked"),
        ]
        constraints = [models.UniqueConstraint(fields=("machine", "lane"), name="waiting_machine_unique")]

    def __str__(self) -> str:
        return f"{self.machine}, {self.get_lane_display()}"
