"""The models of profiles: those of the operator, and the report of each machine on those that it was offered."""

import uuid
from collections.abc import Iterable
from typing import Any

from django.db import models
from django.db.models import Q

from turku.api.fleet.models import NAME_LENGTH, Auth, AuthKind, Machine


class MachineProfile(models.Model):
    """A profile: sources that a group of machines is offered.

    Its group is the machines that fulfil every condition that is set.
    """

    name = models.CharField(max_length=NAME_LENGTH, unique=True)
    comment = models.CharField(max_length=NAME_LENGTH, blank=True)
    auth = models.ForeignKey(
        Auth,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="profiles",
        verbose_name="join token",
        limit_choices_to={"kind": AuthKind.MACHINE},
        help_text="For machines that registered with it.",
    )
    environment_name = models.CharField(
        "environment", max_length=NAME_LENGTH, blank=True, help_text="For machines of this environment."
    )
    service_name = models.CharField(
        "service", max_length=NAME_LENGTH, blank=True, help_text="For machines of this service."
    )
    all_machines = models.BooleanField(default=False, help_text="For every machine. Nothing else may be chosen then.")
    defaults = models.JSONField(default=dict, blank=True, help_text="Options of each source that does not set them.")
    sources = models.JSONField(default=dict, help_text="Name of each source to its options.")
    revision = models.UUIDField(default=uuid.uuid4, editable=False)
    """Another one after each change, by which processes notice it."""
    date_changed = models.DateTimeField("changed", editable=False)

    class Meta:
        verbose_name = "profile"
        ordering = ("name",)
        constraints = [
            models.CheckConstraint(
                condition=Q(all_machines=True, auth=None, environment_name="", service_name="")
                | Q(all_machines=False) & ~Q(auth=None, environment_name="", service_name=""),
                name="profile_group",
                violation_error_message="Choose all machines, or a join token, an environment or a service.",
            )
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, *arguments: Any, update_fields: Iterable[str] | None = None, **options: Any) -> None:
        """Save the profile under a new revision."""
        self.revision = uuid.uuid4()
        fields = None if update_fields is None else {*update_fields, "revision"}
        super().save(*arguments, update_fields=fields, **options)


class ProfilesOfMachine(models.Model):
    """A machine's own report on the profiles that it was offered. A machine that accepts none has no row."""

    machine = models.OneToOneField(Machine, models.CASCADE, related_name="profiles")
    accepts = models.JSONField(default=list, help_text="Directories below which sources of profiles may lie.")
    digest = models.CharField(max_length=64, blank=True)
    taken = models.JSONField(default=dict, help_text="Source to profile.")
    refused = models.JSONField(default=list, help_text="The first sources that it refused, each with the reason.")
    refused_count = models.PositiveIntegerField(default=0)
    taken_profiles = models.JSONField(default=dict, help_text="Profile to the number of sources that it took.")
    refused_profiles = models.JSONField(default=dict, help_text="Profile to the number of sources that it refused.")
    date = models.DateTimeField("reported")

    class Meta:
        verbose_name = "profiles of a machine"
        verbose_name_plural = "profiles of machines"

    def __str__(self) -> str:
        return f"profiles of {self.machine}"
