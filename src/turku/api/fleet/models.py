"""The models of the fleet: Auths, storages, machines, policies and filter sets."""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Coalesce, Concat, Lower

from turku.api.fleet.former_models import FormerHistory as FormerHistory  # noqa: PLC0414  (Django looks for models in this module)
from turku.api.fleet.former_models import PresentManager, Removable

NAME_LENGTH = 200
RETENTION_LENGTH = 1000
SESSIONS_FAILED = Q(date_sessions_failed__isnull=False)
SOURCES_REFUSED = Q(date_sources_refused__isnull=False)


def lower_words(*fields: str) -> Lower:
    """Return an expression of these text fields in lower case, separated by spaces."""
    return Lower(Concat(*(part for field in fields for part in (field, Value(" "))), output_field=models.TextField()))


class AuthKind(models.TextChoices):
    """The kind of program that may register with an Auth."""

    MACHINE = "machine_reg", "machine registration"
    STORAGE = "storage_reg", "storage registration"


class Auth(models.Model):
    """Credentials with which machines or storages register."""

    name = models.CharField(max_length=NAME_LENGTH)
    kind = models.CharField(max_length=16, choices=AuthKind.choices, default=AuthKind.MACHINE)
    secret_hash = models.CharField(max_length=128, db_index=True, editable=False)
    active = models.BooleanField(default=True, help_text="Allows the registration of new machines or storages.")
    comment = models.CharField(max_length=NAME_LENGTH, blank=True)
    date_added = models.DateTimeField(editable=False)
    uses_limit = models.PositiveIntegerField(
        "uses", null=True, blank=True, help_text="Registrations that it allows. Empty for any number."
    )
    uses_count = models.PositiveIntegerField("used", default=0, editable=False)
    """Registrations so far, with those of machines and storages that were removed since."""
    date_ends = models.DateTimeField(
        "ends", null=True, blank=True, help_text="Registers nobody from then on. Empty for no end."
    )

    class Meta:
        ordering = ("kind", "name")
        verbose_name = "registration auth"
        constraints = [models.UniqueConstraint(fields=("kind", "name"), name="auth_name_unique")]

    def __str__(self) -> str:
        return self.name


class ReportsVersions(models.Model):
    """A host that reports the versions of its programs (versions.py)."""

    versions = models.JSONField(default=dict, blank=True, editable=False, help_text="Versions that the host reports.")
    program_order = models.BigIntegerField(null=True, editable=False)
    """The version of its Turku as a number that sorts like the version, or None where it is not known."""

    class Meta:
        abstract = True


class Storage(Removable, ReportsVersions):
    """A host that keeps backups."""

    objects = PresentManager()
    every = models.Manager()
    """With the removed ones."""

    name = models.CharField(max_length=NAME_LENGTH, unique=True)
    secret_hash = models.CharField(max_length=128, db_index=True, editable=False)
    auth = models.ForeignKey(Auth, models.PROTECT, related_name="storages", verbose_name="registered with")
    comment = models.CharField(max_length=NAME_LENGTH, blank=True)
    ssh_ping_host = models.CharField("SSH host", max_length=NAME_LENGTH)
    ssh_ping_host_keys = models.JSONField("SSH host keys", default=list)
    ssh_ping_port = models.PositiveIntegerField("SSH port", default=22)
    ssh_ping_user = models.CharField("SSH user", max_length=NAME_LENGTH)
    space_total = models.FloatField(default=0, help_text="In MiB, as reported by the storage.")
    space_available = models.FloatField(default=0, db_index=True, help_text="In MiB, as reported by the storage.")
    faults = models.JSONField(default=list, editable=False, help_text="Problems that the storage reports.")
    fault_kind = models.CharField(max_length=20, blank=True, default="", editable=False)
    """The worst kind of the faults that has a mark of its own, or empty."""
    active = models.BooleanField(default=True, help_text="Set by the operator.")
    published = models.BooleanField(default=True, help_text="Set by the storage.")
    pinned_keys = models.TextField(
        default="", editable=False, help_text="Fingerprints of the coordinator's keys that it accepts, by spaces."
    )
    is_draining = models.BooleanField(
        "draining", default=False, editable=False, help_text="Gets no new machines. Set by the operator."
    )
    rsync_order = models.BigIntegerField(null=True, editable=False)
    date_registered = models.DateTimeField(editable=False, db_index=True)
    date_checked_in = models.DateTimeField(null=True, blank=True, editable=False, db_index=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Machine(Removable, ReportsVersions):
    """A machine that is backed up."""

    objects = PresentManager()
    every = models.Manager()
    """With the removed ones."""

    uuid = models.UUIDField("UUID", unique=True)
    secret_hash = models.CharField(max_length=128, editable=False)
    auth = models.ForeignKey(Auth, models.PROTECT, related_name="machines", verbose_name="registered with")
    storage = models.ForeignKey(Storage, models.PROTECT, null=True, blank=True, related_name="machines")
    environment_name = models.CharField("environment", max_length=NAME_LENGTH, blank=True)
    service_name = models.CharField("service", max_length=NAME_LENGTH, blank=True)
    unit_name = models.CharField("unit", max_length=NAME_LENGTH, blank=True)
    comment = models.CharField(max_length=NAME_LENGTH, blank=True)
    ssh_public_key = models.TextField("SSH public key", blank=True)
    ssh_key_fingerprint = models.CharField("SSH key fingerprint", max_length=64, blank=True, editable=False)
    active = models.BooleanField(default=True, help_text="Set by the operator.")
    published = models.BooleanField(default=True, help_text="Set by the machine.")
    pinned_keys = models.TextField(
        default="", editable=False, help_text="Fingerprints of the coordinator's keys that it accepts, by spaces."
    )
    date_registered = models.DateTimeField(editable=False, db_index=True)
    # It has no index, because nearly every call writes it. PostgreSQL then updates no index of the table.
    date_checked_in = models.DateTimeField(null=True, blank=True, editable=False)
    date_muted_until = models.DateTimeField(
        "muted until",
        null=True,
        blank=True,
        db_index=True,
        help_text="Until then, silence and failed or missing backups of the machine do not count as problems.",
    )
    mute_reason = models.CharField("mute reason", max_length=NAME_LENGTH, blank=True, default="")
    session_failures = models.JSONField(
        default=list, editable=False, help_text="Sessions with storages that failed, as the machine reported them."
    )
    date_sessions_failed = models.DateTimeField(null=True, editable=False)
    refused_sources = models.JSONField(
        default=dict, editable=False, help_text="Declared sources that could not be taken, with the reasons."
    )
    date_sources_refused = models.DateTimeField(null=True, editable=False)
    re_enrol_code_hash = models.CharField(max_length=128, blank=True, editable=False, db_index=True)
    date_re_enrol_code_ends = models.DateTimeField(null=True, blank=True, editable=False)
    re_enrol_code_is_used = models.BooleanField(default=False, editable=False)
    running_system = models.CharField(max_length=64, blank=True, default="", editable=False)
    """The running system of the last checkin that reported one (clones.py)."""
    earlier_systems = models.JSONField(default=list, blank=True, editable=False)
    date_system_returned = models.DateTimeField(null=True, blank=True, editable=False)
    date_clone_seen = models.DateTimeField("copy seen", null=True, blank=True, editable=False, db_index=True)
    search_text = models.GeneratedField(
        expression=lower_words("environment_name", "service_name", "unit_name", "comment"),
        output_field=models.TextField(),
        db_persist=True,
    )
    """The text that the admin site searches. A single column can be scanned without an index."""

    class Meta:
        ordering = ("environment_name", "service_name", "unit_name", "uuid")
        indexes = [
            models.Index(fields=("environment_name", "service_name", "unit_name"), name="machine_names"),
            models.Index(fields=("unit_name",), name="machine_unit"),
            # Partial indexes of rare states cost nothing while all is well.
            models.Index(fields=("uuid",), condition=SESSIONS_FAILED, name="machine_sessions_failed"),
            models.Index(fields=("uuid",), condition=SOURCES_REFUSED, name="machine_sources_refused"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=("ssh_key_fingerprint",), condition=~Q(ssh_key_fingerprint=""), name="machine_key_unique"
            )
        ]

    def __str__(self) -> str:
        names = (self.environment_name, self.service_name, self.unit_name)
        return "-".join(name for name in names if name) or str(self.uuid)


class ScopedPolicy(models.Model):
    """A policy for all machines, for those registered with one ``auth``, or for one ``machine`` (policies.py).

    An empty field of a subclass inherits from the next wider policy, and finally from the built-in values.
    """

    auth = models.OneToOneField(
        Auth,
        models.CASCADE,
        null=True,
        blank=True,
        related_name="%(class)s",
        limit_choices_to={"kind": AuthKind.MACHINE},
        help_text="For the machines registered with it.",
    )
    machine = models.OneToOneField(
        Machine, models.CASCADE, null=True, blank=True, related_name="%(class)s", help_text="For this machine alone."
    )

    class Meta:
        abstract = True
        ordering = ("machine_id", "auth_id")
        constraints = [
            models.CheckConstraint(
                condition=Q(auth=None) | Q(machine=None),
                name="%(class)s_scope",
                violation_error_message="A policy is for one auth or for one machine, not both.",
            ),
            models.UniqueConstraint(
                Coalesce("auth_id", 0),
                Coalesce("machine_id", 0),
                name="%(class)s_scope_unique",
                violation_error_message="A policy for these machines already exists.",
            ),
        ]

    def __str__(self) -> str:
        if self.machine is not None:
            return f"machine {self.machine}"
        return f"machines of {self.auth}" if self.auth is not None else "all machines"


class Policy(ScopedPolicy):
    """Limits that machines cannot go below."""

    retention_floor = models.CharField(
        "minimum retention",
        max_length=RETENTION_LENGTH,
        blank=True,
        help_text="Kept in addition to the machine's own retention, such as “last 14 days, earliest of 3 months”.",
    )
    allowed_snapshot_modes = models.JSONField(
        null=True,
        blank=True,
        help_text="A source with another mode gets the default one. None selected means any mode.",
    )
    quota_bytes = models.PositiveBigIntegerField(
        "quota", null=True, blank=True, help_text="Bytes that all sources of a machine may use together."
    )
    delay_hours = models.PositiveIntegerField(
        "delay",
        null=True,
        blank=True,
        validators=[MaxValueValidator(24 * 3660)],
        help_text="Hours until a weakening change takes effect on history. The default is 168, seven days.",
    )
    weakening_allowed = models.BooleanField(
        null=True, blank=True, help_text="If not, a weakening change waits until an operator applies it."
    )
    silent_after_hours = models.PositiveIntegerField(
        "silent after",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(24 * 366)],
        help_text="Hours without a checkin after which a machine counts as silent. The default of 1 suits servers. "
        "336, which is 14 days, suits laptops.",
    )
    comment = models.CharField(max_length=NAME_LENGTH, blank=True)

    class Meta(ScopedPolicy.Meta):
        verbose_name_plural = "policies"


class FilterSet(models.Model):
    """Named filter rules that sources take in with ``merge NAME``."""

    name = models.CharField(max_length=NAME_LENGTH, unique=True)
    rules = models.JSONField(default=list, help_text="A list of rsync filter rules.")
    comment = models.CharField(max_length=NAME_LENGTH, blank=True)
    active = models.BooleanField(default=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class HashKey(models.Model):
    """The id of a key that hashed credentials in this database. The key itself is never stored."""

    key_id = models.CharField(max_length=32, unique=True)
    date_added = models.DateTimeField()

    class Meta:
        ordering = ("date_added",)

    def __str__(self) -> str:
        return self.key_id


class BadCredentialCount(models.Model):
    """The number of bad credentials from one address within a minute, shared by all workers (throttle.py)."""

    bucket = models.CharField(max_length=64, unique=True)
    date_begin = models.DateTimeField(db_index=True)
    count = models.PositiveIntegerField()

    def __str__(self) -> str:
        return self.bucket
