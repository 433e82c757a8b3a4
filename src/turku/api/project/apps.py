"""The app ``project``."""

from django.apps import AppConfig


class ProjectApp(AppConfig):
    """The system checks of the coordinator."""

    name = "turku.api.project"
    label = "project"
    verbose_name = "Project"

    def ready(self) -> None:
        # Registers the system checks.
        from turku.api.project import checks  # noqa: F401
