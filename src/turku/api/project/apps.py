"""The app ``project``."""

from django.apps import AppConfig


class ProjectApp(AppConfig):
    """The system checks of the coordinator, and the signals of logins."""

    name = "turku.api.project"

    def ready(self) -> None:
        # Connects the signals and registers the system checks.
        from turku.api.audit import logins  # noqa: F401
        from turku.api.project import checks  # noqa: F401
