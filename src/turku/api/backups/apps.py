"""The app ``backups``."""

from django.apps import AppConfig


class BackupsApp(AppConfig):
    """Sources and the record of their backups."""

    name = "turku.api.backups"
    label = "backups"
    verbose_name = "Backups"
