"""The app ``proof``."""

from django.apps import AppConfig


class ProofConfig(AppConfig):
    """Damage to what is kept, and restore drills."""

    name = "turku.api.proof"
    label = "proof"
    verbose_name = "Proof"
