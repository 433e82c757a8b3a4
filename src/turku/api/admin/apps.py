"""The apps of the admin site."""

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class TurkuAdminApp(AdminConfig):
    """Django's admin with Turku's title."""

    default_site = "turku.api.admin.site.TurkuAdminSite"


class PagesApp(AppConfig):
    """Checks, styles and the front page."""

    name = "turku.api.admin"
    label = "pages"
    verbose_name = "Turku"

    def ready(self) -> None:
        # Registers the system checks and the pages.
        from turku.api.admin.pages import (  # noqa: F401
            audit,
            auths,
            backup_runs,
            filter_sets,
            integrity,
            machines,
            policies,
            profiles,
            queue,
            restores,
            source_changes,
            sources,
            storages,
        )
