"""The models of integrity: damaged files, restore drills, and the integrity state of each source."""

from django.db import models
from django.db.models import Q

from turku.api.backups.models import Source
from turku.api.fleet.models import NAME_LENGTH, Storage


class DamageKind(models.TextChoices):
    """The kind of damage to a stored file (``turku.protocol.integrity_messages.DamageKind``)."""

    CONTENT = "content", "content differs"
    MISSING = "missing", "missing"
    UNREADABLE = "unreadable", "unreadable"
    SOURCE = "source", "differs from the machine's file of the same size and time"
    ATTRIBUTES = "attributes", "extended attributes or ACLs differ"


class DamageState(models.TextChoices):
    """The state of a damaged file."""

    LOST = "lost", "lost"
    NEXT_BACKUP = "next_backup", "waits for the next backup"
    ALARM = "alarm", "needs attention"
    REPAIRED = "repaired", "repaired"
    GONE = "gone", "left history"


RESOLVED = (DamageState.REPAIRED.value, DamageState.GONE.value)
"""The states that need no action."""
OPEN = ~Q(state__in=RESOLVED) & Q(date_acknowledged=None)
"""``Damage.is_open``, for the database."""


class Damage(models.Model):
    """A file of a source's history that is or was damaged."""

    source = models.ForeignKey(Source, models.CASCADE, related_name="damages")
    storage = models.ForeignKey(Storage, models.SET_NULL, null=True, related_name="damages")
    path = models.TextField(help_text="The path within the source, in printable form.")
    digest = models.CharField(max_length=64, editable=False)
    """The digest of path and checksum. A path may be longer than a database can index."""
    kind = models.CharField("what is wrong", max_length=16, choices=DamageKind.choices)
    state = models.CharField(max_length=16, choices=DamageState.choices)
    checksum = models.CharField("expected checksum", max_length=64, blank=True)
    snapshots = models.JSONField("some of the snapshots", default=list)
    snapshot_count = models.PositiveBigIntegerField("snapshots affected", default=0)
    date_found = models.DateTimeField("found", db_index=True)
    date_changed = models.DateTimeField("last reported")
    date_acknowledged = models.DateTimeField("judged", null=True, blank=True)
    acknowledged_by = models.CharField(max_length=NAME_LENGTH, blank=True)

    class Meta:
        ordering = ("-date_found", "-id")
        verbose_name = "damaged file"
        indexes = [
            # A partial index of the rare state costs nothing while all is well.
            models.Index(fields=("source",), condition=OPEN, name="damage_open"),
            models.Index(fields=("storage", "-date_found"), name="damage_storage_date"),
        ]
        constraints = [models.UniqueConstraint(fields=("source", "digest"), name="damage_digest_unique")]

    def __str__(self) -> str:
        return self.path

    @property
    def is_open(self) -> bool:
        """True if somebody has to act."""
        return self.state not in RESOLVED and self.date_acknowledged is None


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
    """The integrity of a source: when its stored files were last read, and how its last restore drill went."""

    source = models.OneToOneField(Source, models.CASCADE, primary_key=True, related_name="integrity")
    date_verified = models.DateTimeField("last verified", null=True, db_index=True)
    verified_files = models.PositiveBigIntegerField(default=0)
    verified_bytes = models.PositiveBigIntegerField(default=0)
    date_oldest_check = models.DateTimeField("all files verified since", null=True)
    date_drilled = models.DateTimeField("last good drill", null=True, db_index=True)
    date_proven_until = models.DateTimeField("proven until", null=True, db_index=True)
    drill_succeeded = models.BooleanField("last drill succeeded", null=True)

    class Meta:
        ordering = ("-date_verified",)
        verbose_name = "integrity state"
        verbose_name_plural = "integrity states"

    def __str__(self) -> str:
        return str(self.source)
