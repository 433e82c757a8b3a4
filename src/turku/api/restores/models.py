"""The models of restores."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q

from turku.api.backups.models import Source
from turku.api.fleet.models import NAME_LENGTH, Auth, AuthKind, Machine, ScopedPolicy, scope_constraints

PATH_LENGTH = 4096
REASON_LENGTH = 1000


class Approvals(models.IntegerChoices):
    """How many operators have to approve a restore request."""

    NONE = 0, "nobody"
    ONE = 1, "one operator"
    TWO = 2, "two operators"


class RestorePolicy(ScopedPolicy):
    """What of history may be seen and had: for all machines, for those registered with one Auth, or for one machine.

    An empty field leaves the matter to the next wider policy, and at last to policies.BUILT_IN.
    """

    auth = models.OneToOneField(
        Auth,
        models.CASCADE,
        null=True,
        blank=True,
        related_name="restore_policy",
        limit_choices_to={"kind": AuthKind.MACHINE},
        help_text="For the machines registered with it.",
    )
    machine = models.OneToOneField(
        Machine,
        models.CASCADE,
        null=True,
        blank=True,
        related_name="restore_policy",
        help_text="For this machine alone.",
    )
    history_visible = models.BooleanField(
        "machine has its own history",
        null=True,
        blank=True,
        help_text="May a machine look at its own history and restore from it by itself? No: by a request only.",
    )
    approvals = models.PositiveSmallIntegerField(
        "requests are approved by",
        choices=Approvals.choices,
        null=True,
        blank=True,
        help_text="Of the machines that a request is about, the stricter one counts.",
    )
    other_machines = models.BooleanField(
        "onto other machines",
        null=True,
        blank=True,
        help_text="May its history be restored onto other machines that are registered with the same auth? "
        "A superuser may choose any machine.",
    )
    comment = models.CharField(max_length=NAME_LENGTH, blank=True)

    class Meta(ScopedPolicy.Meta):
        verbose_name_plural = "restore policies"
        constraints = scope_constraints("restore_policy_scope")


class RequestState(models.TextChoices):
    """Where a request stands; those of ``OVER`` are its end."""

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
    """What happens to files that are there (``restore_request_messages.Overwrite``)."""

    NEVER = "never", "keep what is there"
    OLDER = "older", "replace what is older"
    ALWAYS = "always", "replace what differs"


class RestoreRequest(models.Model):
    """A restore that an operator asked for: of a source, onto the machine that it is of or onto another one.

    States change by conditional updates alone (transitions.py).
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    source = models.ForeignKey(Source, models.CASCADE, related_name="restore_requests")
    target = models.ForeignKey(
        Machine,
        models.CASCADE,
        related_name="restore_requests",
        verbose_name="onto machine",
        help_text="Where the files go: the machine that they are of, or another one of the same operator.",
    )
    snapshot = models.CharField(max_length=NAME_LENGTH, blank=True)
    moment = models.CharField("state of", max_length=NAME_LENGTH, blank=True)
    resolved_snapshot = models.CharField("which is", max_length=NAME_LENGTH, blank=True, editable=False)
    """The one snapshot that ``snapshot`` or ``moment`` means, or the latest where both are empty: as the storage said
    when the request was used first. It stays what it is when newer ones are made."""
    paths = models.JSONField(default=list, blank=True)
    """As ``restore_messages.WirePath`` has them; none: the whole source."""
    directory = models.CharField(max_length=PATH_LENGTH)
    overwrite = models.CharField(
        "files that are there", max_length=8, choices=Overwrite.choices, default=Overwrite.NEVER
    )
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
    """From when on a check-in of the target is told of it; None where it is not to be told. While a run holds it: the
    end of that run's lease."""
    claim = models.CharField(max_length=64, blank=True, editable=False)
    """Drawn by the run of the machine that holds it."""
    attempts = models.PositiveIntegerField("times picked up", default=0, editable=False)
    date_picked_up = models.DateTimeField("picked up", null=True, blank=True, editable=False)
    date_progress = models.DateTimeField("last heard of", null=True, blank=True, editable=False)
    files = models.PositiveBigIntegerField("files restored", default=0, editable=False)
    size_bytes = models.PositiveBigIntegerField("bytes restored", default=0, editable=False)
    files_total = models.PositiveBigIntegerField("files in all", null=True, blank=True, editable=False)
    size_total_bytes = models.PositiveBigIntegerField("bytes in all", null=True, blank=True, editable=False)
    restored_snapshot = models.CharField(max_length=NAME_LENGTH, blank=True, editable=False)
    message = models.TextField("what the machine says", blank=True, editable=False)

    class Meta:
        ordering = ("-date_requested", "-id")
        permissions = (("approve_restorerequest", "Can approve and reject restore requests"),)
        indexes = [
            # What a check-in looks for, and what is open: rare, so both cost nothing while nobody restores.
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
        """Who approved it, in their order."""
        return tuple(name for name in (self.first_approval_by, self.second_approval_by) if name)

    @property
    def is_onto_another_machine(self) -> bool:
        return self.target_id != self.source.machine_id
