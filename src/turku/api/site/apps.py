"""The apps of the admin site."""

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class TurkuAdminConfig(AdminConfig):
    """Django's admin with Turku's title."""

    default_site = "turku.api.site.admin.TurkuAdminSite"


class SiteConfig(AppConfig):
    """Checks, styles and the front page."""

    name = "turku.api.site"
    label = "site"
    verbose_name = "Turku"

    def ready(self) -> None:
        # Registers the system checks.
        from turku.api import checks  # noqa: F401
