"""The models of admission. A slot's row is the lease on it: whoever is named in the row holds the slot."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from turku.api.fleet.models import Machine, Storage
from turku.policy.queue import DEFAULT_SLOTS, SLOTS_LIMIT, Lane
from turku.policy.timing.clock_agreement import COORDINATORS_TOLERANCE

LANES = [(Lane.REGULAR.value, "regular"), (Lane.FIRST.value, "first backups")]


LONGEST_LEASE = timedelta(hours=12)
"""That of a session without heartbeats, such as one of a storage of the existing system."""


def held(*, now: datetime) -> Q:
    """Return that a machine has the slot, as ``Slot.is_held`` says it.

    A lease that a clock which was ahead wrote would outlast every other one: it counts for nothing.
    """
    return Q(
        machine__isnull=False, date_expires__gt=now, date_expires__lte=now + LONGEST_LEASE + COORDINATORS_TOLERANCE
    )


class StorageSlots(models.Model):
    """How many machines may be backed up to a storage at once; the smaller of what operator and storage say."""

    storage = models.OneToOneField(Storage, models.CASCADE, primary_key=True, related_name="slot_settings")
    slots = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(SLOTS_LIMIT)],
        help_text=f"Sessions at once, first backups included; empty: what the storage says, or {DEFAULT_SLOTS}.",
    )
    first_slots = models.PositiveIntegerField(
        "slots for first backups",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(SLOTS_LIMIT)],
        help_text="How many of them; empty: a quarter.",
    )
    reported_slots = models.PositiveIntegerField("slots by its configuration", null=True, blank=True, editable=False)

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
    """One slot of a storage, and who has it until when."""

    storage = models.ForeignKey(Storage, models.CASCADE, related_name="slots")
    lane = models.CharField(max_length=8, choices=LANES)
    number = models.PositiveIntegerField()
    retired = models.BooleanField(default=False, help_text="There are fewer slots now: nobody gets this one.")
    machine = models.ForeignKey(Machine, models.SET_NULL, null=True, blank=True, related_name="slots")
    date_taken = models.DateTimeField("taken", null=True, blank=True)
    date_begun = models.DateTimeField(
        "begun", null=True, blank=True, help_text="Empty while it is reserved for a machine that has not come yet."
    )
    date_heartbeat = models.DateTimeField("last heartbeat", null=True, blank=True)
    date_expires = models.DateTimeField("expires", null=True, blank=True)
    date_freed = models.DateTimeField("freed", null=True, blank=True)
    date_begun_before = models.DateTimeField(null=True, blank=True, help_text="When the session began that freed it.")

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
        """Whether somebody has it."""
        if self.machine_id is None or self.date_expires is None:
            return False
        return now < self.date_expires <= now + LONGEST_LEASE + COORDINATORS_TOLERANCE

    def free_since(self) -> datetime | None:
        """Since when nobody has it, of one that nobody has; None for since ever."""
        return self.date_freed if self.machine_id is None else self.date_expires

    def last_length(self) -> timedelta:
        """For how long the last session had it, of one that nobody has."""
        begun = self.date_begun_before if self.machine_id is None else self.date_begun
        freed = self.free_since()
        return timedelta(0) if begun is None or freed is None else freed - begun


class WaitingMachine(models.Model):
    """A machine that asked, was due, and got no slot."""

    storage = models.ForeignKey(Storage, models.CASCADE, related_name="waiting")
    machine = models.ForeignKey(Machine, models.CASCADE, related_name="waiting")
    lane = models.CharField(max_length=8, choices=LANES)
    date_due = models.DateTimeField("due since")
    date_deadline = models.DateTimeField("patience ends", help_text="The queue's order.")
    date_queued = models.DateTimeField("waiting since")
    date_asked = models.DateTimeField("asked last")
    date_no_show = models.DateTimeField(
        "did not come", null=True, blank=True, help_text="When it let a slot lapse that was reserved for it."
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
