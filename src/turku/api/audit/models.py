"""The model of the audit log."""

from django.db import models
from django.db.models import Q

TEXT_LENGTH = 200


class ActorKind(models.TextChoices):
    """The kind of person or program that acted."""

    MACHINE = "machine", "machine"
    STORAGE = "storage", "storage"
    PERSON = "person", "person"
    COMMAND = "command", "command line"
    COORDINATOR = "coordinator", "coordinator"
    UNKNOWN = "unknown", "unknown"


class AuditEntry(models.Model):
    """One recorded action.

    It has no foreign keys, because an entry outlives its subject. The database refuses to change or delete it
    (append_only.py).
    """

    date = models.DateTimeField(db_index=True)
    action = models.CharField(max_length=64)
    actor_kind = models.CharField("by", max_length=16, choices=ActorKind.choices)
    actor = models.CharField("name", max_length=TEXT_LENGTH, blank=True)
    address = models.GenericIPAddressField("from", null=True)
    subject_kind = models.CharField("kind", max_length=32, blank=True)
    subject_key = models.CharField("key", max_length=TEXT_LENGTH, blank=True)
    subject = models.CharField(max_length=TEXT_LENGTH, blank=True)
    weakens = models.BooleanField("weakens protection", default=False)
    old = models.JSONField(default=dict)
    new = models.JSONField(default=dict)

    class Meta:
        ordering = ("-date", "-id")
        verbose_name_plural = "audit log"
        indexes = [
            models.Index(fields=("actor", "-date"), name="audit_actor_date"),
            models.Index(fields=("actor_kind", "-date", "-id"), name="audit_kind_date"),
            models.Index(fields=("subject_key", "-date"), name="audit_subject_date"),
            models.Index(fields=("subject", "-date"), name="audit_name_date"),
            models.Index(fields=("action", "-date", "-id"), name="audit_action_date"),
            models.Index(fields=("address", "-date"), name="audit_address_date"),
            models.Index(fields=("-date", "-id"), condition=Q(weakens=True), name="audit_weakens_date"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.subject}".strip()
