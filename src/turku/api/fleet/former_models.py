"""Models of what left the fleet: removed machines and storages, and history that its storage only keeps."""

from typing import TypeVar

from django.db import models

NAME_LENGTH = 200


Row = TypeVar("Row", bound=models.Model)


class PresentManager(models.Manager[Row]):
    """A manager that leaves out the rows that an operator removed."""

    def get_queryset(self) -> models.QuerySet[Row]:
        """Return the rows that are part of the fleet."""
        return super().get_queryset().filter(date_removed=None)


class Removable(models.Model):
    """A host that an operator may remove from the fleet.

    The row of a removed host stays, hidden, so that its identity is refused when the host comes back (removal.py).
    """

    date_removed = models.DateTimeField("removed", null=True, editable=False)
    removed_by = models.CharField(max_length=NAME_LENGTH, blank=True, default="", editable=False)

    class Meta:
        abstract = True


class FormerHistory(models.Model):
    """History of a machine on a storage that does not back it up any more, because it was moved or removed.

    The row is deleted when the storage reports that nothing is left, and when the storage backs the machine up again.
    """

    machine_uuid = models.UUIDField("UUID", db_index=True, editable=False)
    machine_name = models.CharField("machine", max_length=3 * NAME_LENGTH + 2, editable=False)
    storage = models.ForeignKey(
        "fleet.Storage", models.CASCADE, editable=False, related_name="former_histories", verbose_name="storage"
    )
    is_moved = models.BooleanField(
        "moved", editable=False, help_text="The machine is backed up by another storage, and may restore from this one."
    )
    date_since = models.DateTimeField("since", editable=False)
    date_keep_until = models.DateTimeField(
        "kept until", null=True, editable=False, help_text="Then its storage moves it to the trash. Empty for no end."
    )

    class Meta:
        ordering = ("storage", "machine_name", "id")
        verbose_name_plural = "former histories"
        constraints = [models.UniqueConstraint(fields=("machine_uuid", "storage"), name="former_history_unique")]

    def __str__(self) -> str:
        return f"{self.machine_name} on {self.storage}"
