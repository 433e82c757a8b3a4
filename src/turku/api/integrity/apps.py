"""The app ``integrity``."""

from django.apps import AppConfig


class IntegrityApp(AppConfig):
    """Damage to what is kept, and restore drills."""

    name = "turku.api.integrity"
    label = "integrity"
    verbose_name = "Integrity"
