"""The models of backups."""

import uuid

from django.db import models
from django.db.models import Q

from turku.api.backups.profiles.models import MachineProfile, ProfilesOfMachine  # noqa: F401  (Django looks here)
from turku.api.fleet.models import NAME_LENGTH, Machine, Storage, lower_words
from turku.policy import run_options, snapshot_mode, source_options
from turku.protocol.messages import STRATEGY_REASON_LIMIT

RULE_LENGTH = source_options.RULE_LENGTH
SOURCES_LIMIT = source_options.SOURCES_LIMIT
"""Sources of one machine, including those no longer declared. A machine must not fill the database."""
FALLING_BACK_RUNS = 3
"""Full runs in a row, each with a base snapshot available, after which a source counts as falling back."""
INCOMPLETE = Q(date_incomplete_since__isnull=False)
REASON_LENGTH = 300
"""The length of each reason that is stored with a source or a run."""
WITHDRAWN = Q(date_withdrawn__isnull=False)
FALLING_BACK = Q(fallback_count__gte=FALLING_BACK_RUNS)
DEFAULT_FREQUENCY = source_options.DEFAULT_FREQUENCY
DEFAULT_RETENTION = source_options.DEFAULT_RETENTION


class SnapshotModeChoices(models.TextChoices):
    """The way a storage keeps history, as ``turku.policy.snapshot_mode`` names it."""

    LINK_DEST = snapshot_mode.LINK_DEST, "link-dest"
    NONE = snapshot_mode.NONE, "none"
    BTRFS = snapshot_mode.BTRFS, "btrfs"
    REFLINK = snapshot_mode.REFLINK, "reflink"
    AUTO = snapshot_mode.AUTO, "auto"


class StrategyChoices(models.TextChoices):
    """The way a snapshot was made, one of ``turku.protocol.messages.STRATEGIES``."""

    UNCHANGED = "unchanged", "unchanged"
    INCREMENTAL = "incremental", "incremental"
    FULL = "full", "full"
    IN_PLACE = "in-place", "in place"


class Source(models.Model):
    """A directory tree of a machine that is backed up."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    machine = models.ForeignKey(Machine, models.CASCADE, related_name="sources")
    name = models.CharField(max_length=NAME_LENGTH)
    path = models.TextField()
    comment = models.CharField(max_length=NAME_LENGTH, blank=True)
    frequency = models.CharField(max_length=RULE_LENGTH, default=DEFAULT_FREQUENCY)
    retention = models.CharField(max_length=RULE_LENGTH, default=DEFAULT_RETENTION)
    bwlimit = models.PositiveBigIntegerField("bandwidth limit", null=True, blank=True, help_text="KiB/s")
    snapshot_mode = models.CharField(max_length=16, choices=SnapshotModeChoices.choices, blank=True)
    filter = models.JSONField(default=list, blank=True)
    exclude = models.JSONField(default=list, blank=True)
    preserve_hard_links = models.BooleanField(default=False)
    shared_service = models.BooleanField(default=False)
    large_rotating_files = models.BooleanField(default=False)
    large_modifying_files = models.BooleanField(default=False)
    other_options = models.JSONField(
        default=dict, blank=True, help_text="Options that are stored as the machine sent them."
    )
    active = models.BooleanField(default=True, help_text="Set by the operator.")
    published = models.BooleanField(default=True, help_text="Declared in the machine's configuration.")
    date_withdrawn = models.DateTimeField(
        "withdrawn",
        null=True,
        blank=True,
        editable=False,
        help_text="Date on which the machine stopped declaring a source with backups. Empty once confirmed.",
    )
    date_added = models.DateTimeField(editable=False, db_index=True)
    date_last_backed_up = models.DateTimeField("last good backup", null=True, blank=True, editable=False, db_index=True)
    date_next_backup = models.DateTimeField("next backup", db_index=True)
    date_expected = models.DateTimeField(
        "next backup by the schedule",
        null=True,
        blank=True,
        editable=False,
        db_index=True,
        help_text="Counted from the last good backup. Neither failures nor an order to back up now change it.",
    )
    longest_pause_days = models.PositiveIntegerField(default=0, editable=False)
    """The largest number of days to the next backup by this schedule. 0 means no bound."""
    success = models.BooleanField("last run succeeded", null=True, blank=True, editable=False)
    quarantined = models.BooleanField(
        "last backup quarantined",
        default=False,
        editable=False,
        help_text="Its storage keeps the snapshot in quarantine until a person accepts or rejects it.",
    )
    findings = models.JSONField("findings", default=list, blank=True, editable=False)
    failure_count = models.PositiveIntegerField("failures in a row", default=0, editable=False)
    failure_reason = models.CharField(
        "reason of the last failure", max_length=REASON_LENGTH, blank=True, default="", editable=False
    )
    date_incomplete_since = models.DateTimeField("incomplete since", null=True, blank=True, editable=False)
    missing_files = models.PositiveBigIntegerField(
        "files missing", default=0, editable=False, help_text="Files that no backup could read."
    )
    stale_files = models.PositiveBigIntegerField(
        "files stale",
        default=0,
        editable=False,
        help_text="Files that could not be read and are kept as they were at their last good backup.",
    )
    incomplete_reasons = models.JSONField("reasons for incompleteness", default=list, blank=True, editable=False)
    fallback_count = models.PositiveIntegerField(
        "full runs in a row",
        default=0,
        editable=False,
        help_text="Good runs that transferred everything although there was a base snapshot.",
    )
    fallback_reason = models.CharField(
        "reason of the last full run", max_length=STRATEGY_REASON_LIMIT, blank=True, default="", editable=False
    )
    search_text = models.GeneratedField(
        expression=lower_words("name", "path", "comment"), output_field=models.TextField(), db_persist=True
    )

    class Meta:
        ordering = ("machine_id", "name")
        # Partial indexes of rare states cost nothing while all is well.
        indexes = [
            models.Index(fields=("machine",), condition=Q(success=False), name="source_failed"),
            models.Index(fields=("machine",), condition=Q(quarantined=True), name="source_quarantined"),
            models.Index(fields=("machine",), condition=FALLING_BACK, name="source_falling_back"),
            models.Index(fields=("machine",), condition=INCOMPLETE, name="source_incomplete"),
            models.Index(fields=("machine",), condition=WITHDRAWN, name="source_withdrawn"),
        ]
        constraints = [models.UniqueConstraint(fields=("machine", "name"), name="source_name_unique")]

    def __str__(self) -> str:
        return self.name

    @property
    def resulting_mode(self) -> str:
        """The weakest snapshot mode that may result on a storage, or empty for the storage's default."""
        return snapshot_mode.weakest(self.snapshot_mode, has_large_files=self.has_large_files)

    @property
    def one_file_system(self) -> bool:
        """The value of that option in ``other_options``. Its default depends on the path."""
        return run_options.stays_on_one_file_system(self.path, self.other_options.get(run_options.ONE_FILE_SYSTEM))

    @property
    def has_large_files(self) -> bool:
        return self.large_rotating_files or self.large_modifying_files


class SourceChange(models.Model):
    """A change by the machine that weakens the protection of a source.

    Further changes join it while it is held back.
    """

    source = models.ForeignKey(Source, models.CASCADE, related_name="weakenings")
    date = models.DateTimeField("changed", db_index=True)
    date_effective = models.DateTimeField(
        "takes effect", null=True, blank=True, db_index=True, help_text="Empty until an operator applies it."
    )
    weakenings = models.JSONField(default=list)
    old = models.JSONField(default=dict)
    new = models.JSONField(default=dict)

    class Meta:
        ordering = ("-date", "-id")
        verbose_name = "weakening change"

    def __str__(self) -> str:
        return f"{self.source}: {', '.join(self.weakenings)}"


class BackupRun(models.Model):
    """One run of one source, as the storage reported it."""

    source = models.ForeignKey(Source, models.CASCADE, related_name="runs")
    storage = models.ForeignKey(Storage, models.SET_NULL, null=True, related_name="runs")
    date = models.DateTimeField("reported", db_index=True)
    success = models.BooleanField()
    snapshot = models.CharField(max_length=NAME_LENGTH, blank=True)
    strategy = models.CharField(max_length=16, choices=StrategyChoices.choices, blank=True, default="")
    strategy_reason = models.CharField(
        "reason",
        max_length=STRATEGY_REASON_LIMIT,
        blank=True,
        default="",
        help_text="The reason for a full transfer although there was a base snapshot.",
    )
    summary = models.TextField(blank=True)
    missing_files = models.PositiveBigIntegerField("files missing", default=0)
    stale_files = models.PositiveBigIntegerField("files stale", default=0)
    warning_count = models.PositiveBigIntegerField("warnings", default=0)
    warnings = models.JSONField("first warnings", default=list, blank=True)
    date_begin = models.DateTimeField("begun", null=True, blank=True)
    date_end = models.DateTimeField("ended", null=True, blank=True)

    class Meta:
        ordering = ("-date", "-id")
        indexes = [
            models.Index(fields=("source", "-date"), name="run_source_date"),
            models.Index(fields=("storage", "-date", "-id"), name="run_storage_date"),
            models.Index(fields=("-date", "-id"), condition=Q(success=False), name="run_failed_date"),
            models.Index(fields=("snapshot",), name="run_snapshot"),
        ]

    def __str__(self) -> str:
        return self.snapshot or f"run {self.pk}"
