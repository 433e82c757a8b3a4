"""The app ``fleet``."""

from django.apps import AppConfig


class FleetApp(AppConfig):
    """Registration Auths, storages, machines, filter sets."""

    name = "turku.api.fleet"
    label = "fleet"
    verbose_name = "Fleet"
