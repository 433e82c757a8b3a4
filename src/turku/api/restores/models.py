"""The models of restores."""

import uuid

from django.db import models
from django.db.models import Q

from turku.api.backups.models import Source
from turku.api.fleet.models import NAME_LENGTH, Machine, ScopedPolicy

PATH_LENGTH = 4096
REASON_LENGTH = 1000


class Approvals(models.IntegerChoices):
    """The number of operators who have to approve a restore request."""

    NONE = 0, "nobody"
    ONE = 1, "one operator"
    TWO = 2, "two operators"


class RestorePolicy(ScopedPolicy):
    """Rules for access to history."""

    history_visible = models.BooleanField(
        "machine may read its own history",
        null=True,
        blank=True,
        help_text="If not, the machine gets its history only through a restore request.",
    )
    approvals = models.PositiveSmallIntegerField(
        "requests are approved by",
        choices=Approvals.choices,
        null=True,
        blank=True,
        help_text="If a request concerns two machines, the stricter value counts.",
    )
    other_machines = models.BooleanField(
        "onto other machines",
        null=True,
        blank=True,
        help_text="Allows restores onto other machines that are registered with the same Auth. "
        "A superuser may choose any machine.",
    )
    comment = models.CharField(max_length=NAME_LENGTH, blank=True)

    class Meta(ScopedPolicy.Meta):
        verbose_name_plural = "restore policies"


class RequestState(models.TextChoices):
    """The state of a request. Those in ``ENDED`` are final."""

    REQUESTED = "requested", "waits for approval"
    WAITING = "waiting", "waits for the machine"
    PICKED_UP = "picked_up", "picked up"
    RUNNING = "running", "running"
    DONE = "done", "done"
    PARTIAL = "partial", "done in part"
    FAILED = "failed", "failed"
    REFUSED = "refused", "refused by the machine"
    REJECTED = "rejected", "rejected"
    CANCELLED = "cancelled", "cancelled"
    EXPIRED = "expired", "expired"


IN_PROGRESS = (RequestState.PICKED_UP.value, RequestState.RUNNING.value)
APPROVED = (RequestState.WAITING.value, *IN_PROGRESS)
OPEN = (RequestState.REQUESTED.value, *APPROVED)
ENDED = tuple(state.value for state in RequestState if state.value not in OPEN)


class Overwrite(models.TextChoices):
    """The treatment of existing files (``restore_messages.Overwrite``)."""

    NEVER = "never", "keep existing files"
    OLDER = "older", "replace older files"
    ALWAYS = "always", "replace files that differ"


class RestoreRequest(models.Model):
    """A restore of a source that an operator requested, onto its own machine or another one.

    States change by conditional updates alone (transitions.py).
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    source = models.ForeignKey(Source, models.CASCADE, related_name="restore_requests")
    target = models.ForeignKey(
        Machine,
        models.CASCADE,
        related_name="restore_requests",
        verbose_name="onto machine",
        help_text="The machine that receives the files: their own, or another one of the same operator.",
    )
    snapshot = models.CharField(max_length=NAME_LENGTH, blank=True)
    moment = models.CharField("as of", max_length=NAME_LENGTH, blank=True)
    resolved_snapshot = models.CharField("resolved snapshot", max_length=NAME_LENGTH, blank=True, editable=False)
    """The snapshot that ``snapshot`` or ``moment`` means, or the latest if both are empty. The storage resolved it when
    the request was used first. Newer snapshots do not change it."""
    paths = models.JSONField(default=list, blank=True)
    """The paths in the form of ``restore_messages.WirePath``. None means the whole source."""
    directory = models.CharField(max_length=PATH_LENGTH)
    overwrite = models.CharField("existing files", max_length=8, choices=Overwrite.choices, default=Overwrite.NEVER)
    reason = models.CharField(max_length=REASON_LENGTH)

    state = models.CharField(
        max_length=16, choices=RequestState.choices, default=RequestState.REQUESTED, editable=False
    )
    approvals_needed = models.PositiveSmallIntegerField(choices=Approvals.choices, editable=False)
    requested_by = models.CharField(max_length=NAME_LENGTH, editable=False)
    date_requested = models.DateTimeField("requested", editable=False)
    first_approval_by = models.CharField(max_length=NAME_LENGTH, blank=True, editable=False)
    date_first_approval = models.DateTimeField(null=True, blank=True, editable=False)
    second_approval_by = models.CharField(max_length=NAME_LENGTH, blank=True, editable=False)
    date_second_approval = models.DateTimeField(null=True, blank=True, editable=False)
    date_approved = models.DateTimeField("approved", null=True, blank=True, editable=False)
    ended_by = models.CharField("rejected or cancelled by", max_length=NAME_LENGTH, blank=True, editable=False)
    date_expires = models.DateTimeField("expires", editable=False)
    date_ended = models.DateTimeField("ended", null=True, blank=True, editable=False)

    date_offered = models.DateTimeField("offered from", null=True, blank=True, editable=False)
    """The moment from which checkins of the target offer the restore, or None for never.

    While a run holds it, this is the end of the run's lease.
    """
    claim = models.CharField(max_length=64, blank=True, editable=False)
    """A random token of the run that holds the request."""
    attempts = models.PositiveIntegerField("times picked up", default=0, editable=False)
    date_picked_up = models.DateTimeField("picked up", null=True, blank=True, editable=False)
    date_progress = models.DateTimeField("last progress report", null=True, blank=True, editable=False)
    files = models.PositiveBigIntegerField("files restored", default=0, editable=False)
    size_bytes = models.PositiveBigIntegerField("bytes restored", default=0, editable=False)
    files_total = models.PositiveBigIntegerField("files in total", null=True, blank=True, editable=False)
    size_total_bytes = models.PositiveBigIntegerField("bytes in total", null=True, blank=True, editable=False)
    restored_snapshot = models.CharField(max_length=NAME_LENGTH, blank=True, editable=False)
    message = models.TextField("message of the machine", blank=True, editable=False)

    class Meta:
        ordering = ("-date_requested", "-id")
        permissions = (("approve_restorerequest", "Can approve and reject restore requests"),)
        indexes = [
            # Partial indexes for checkins and open requests cost nothing while nobody restores.
            models.Index(fields=("target", "date_offered"), condition=Q(date_offered__isnull=False), name="rr_offered"),
            models.Index(fields=("source",), condition=Q(state__in=OPEN), name="rr_open_source"),
            models.Index(fields=("date_expires",), condition=Q(state__in=OPEN), name="rr_open_expires"),
            models.Index(fields=("-date_requested", "-id"), name="rr_date"),
            models.Index(fields=("state", "-date_requested", "-id"), name="rr_state_date"),
        ]

    def __str__(self) -> str:
        return f"{self.source} onto {self.target}"

    @property
    def approvers(self) -> tuple[str, ...]:
        """The operators who approved it, in their order."""
        return tuple(name for name in (self.first_approval_by, self.second_approval_by) if name)

    @property
    def is_onto_another_machine(self) -> bool:
        return self.target_id != self.source.machine_id
