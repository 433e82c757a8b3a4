"""The app ``audit``."""

from django.apps import AppConfig


class AuditApp(AppConfig):
    """The audit log."""

    name = "turku.api.audit"
    label = "audit"
    verbose_name = "Audit"

    def ready(self) -> None:
        # Connects the signals of logins.
        from turku.api.audit import logins  # noqa: F401
