"""The models of proof: what of a source was found damaged, how restores of it were tried, and where it stands."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from turku.api.backups.models import Source
from turku.api.fleet.models import NAME_LENGTH, Storage


class DamageKind(models.TextChoices):
    """What is wrong with a stored file (``turku.protocol.integrity_messages.DamageKind``)."""

    CONTENT = "content", "content is not what was written"
    MISSING = "missing", "is gone"
    UNREADABLE = "unreadable", "cannot be read"
    SOURCE = "source", "differs from the machine's, size and time alike"
    ATTRIBUTES = "attributes", "has other extended attributes or ACLs"


class DamageState(models.TextChoices):
    """What became of it."""

    LOST = "lost", "lost"
    NEXT_BACKUP = "next_backup", "waits for the next backup"
    ALARM = "alarm", "to be looked at"
    REPAIRED = "repaired", "repaired"
    GONE = "gone", "left history"


RESOLVED = (DamageState.REPAIRED.value, DamageState.GONE.value)
"""The states that nobody has to act on."""


class Damage(models.Model):
    """A file of a source's history that is, or was, not what it should be."""

    source = models.ForeignKey(Source, models.CASCADE, related_name="damages")
    storage = models.ForeignKey(Storage, models.SET_NULL, null=True, related_name="damages")
    path = models.TextField(help_text="Within the source, fit to be printed.")
    digest = models.CharField(max_length=64, editable=False)
    """Of path and checksum: a path may be longer than what a database indexes."""
    kind = models.CharField("what is wrong", max_length=16, choices=DamageKind.choices)
    state = models.CharField(max_length=16, choices=DamageState.choices)
    checksum = models.CharField("expected checksum", max_length=64, blank=True)
    snapshots = models.JSONField("some of the snapshots", default=list)
    snapshot_count = models.PositiveBigIntegerField("snapshots affected", default=0)
    date_found = models.DateTimeField("found", db_index=True)
    date_changed = models.DateTimeField("last told of")
    date_acknowledged = models.DateTimeField("judged", null=True, blank=True)
    acknowledged_by = models.CharField(max_length=NAME_LENGTH, blank=True)

    class Meta:
        ordering = ("-date_found", "-id")
        verbose_name = "damaged file"
        indexes = [
            # The rare state has an index of its own, which costs nothing while all is well.
            models.Index(
                fields=("source",),
                condition=~Q(state__in=RESOLVED) & Q(date_acknowledged=None),
                name="damage_open",
            ),
            models.Index(fields=("storage", "-date_found"), name="damage_storage_date"),
        ]
        constraints = [models.UniqueConstraint(fields=("source", "digest"), name="damage_digest_unique")]

    def __str__(self) -> str:
        return self.path

    @property
    def is_open(self) -> bool:
        """Whether somebody has to act."""
        return self.state not in RESOLVED and self.date_acknowledged is None


OPEN = ~Q(state__in=RESOLVED) & Q(date_acknowledged=None)
"""``Damage.is_open``, for the database."""


class Drill(models.Model):
    """One restore drill of one source, as its storage reported it."""

    source = models.ForeignKey(Source, models.CASCADE, related_name="drills")
    storage = models.ForeignKey(Storage, models.SET_NULL, null=True, related_name="drills")
    date = models.DateTimeField("reported", db_index=True)
    success = models.BooleanField()
    snapshot = models.CharField(max_length=NAME_LENGTH, blank=True)
    files = models.PositiveBigIntegerField("files restored", default=0)
    size_bytes = models.PositiveBigIntegerField("bytes restored", default=0)
    date_begin = models.DateTimeField("begun")
    date_end = models.DateTimeField("ended")
    summary = models.TextField(blank=True)

    class Meta:
        ordering = ("-date", "-id")
        verbose_name = "restore drill"
        indexes = [
            models.Index(fields=("source", "-date", "-id"), name="drill_source_date"),
            models.Index(fields=("storage", "-date", "-id"), name="drill_storage_date"),
            models.Index(fields=("-date", "-id"), condition=Q(success=False), name="drill_failed_date"),
        ]

    def __str__(self) -> str:
        return self.snapshot or f"drill {self.pk}"


class IntegrityState(models.Model):
    """Where a source stands: when its stored files were last read again, and whether a restore of it was tried."""

    source = models.OneToOneField(Source, models.CASCADE, primary_key=True, related_name="integrity")
    date_verified = models.DateTimeField("last read again", null=True, db_index=True)
    verified_files = models.PositiveBigIntegerField(default=0)
    verified_bytes = models.PositiveBigIntegerField(default=0)
    date_oldest_check = models.DateTimeField("every file was read since", null=True)
    date_drilled = models.DateTimeField("last good drill", null=True, db_index=True)
    date_proven_until = models.DateTimeField("proven until", null=True, db_index=True)
    drill_succeeded = models.BooleanField("last drill succeeded", null=True)

    class Meta:
        ordering = ("-date_verified",)
        verbose_name = "integrity state"
        verbose_name_plural = "integrity states"

    def __str__(self) -> str:
        return str(self.source)
