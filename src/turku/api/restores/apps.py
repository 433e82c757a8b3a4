"""The app ``restores``."""

from django.apps import AppConfig


class RestoresApp(AppConfig):
    """Policies of history and restore requests."""

    name = "turku.api.restores"
    label = "restores"
    verbose_name = "Restores"
