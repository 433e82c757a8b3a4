"""The app ``admission``."""

from django.apps import AppConfig


class AdmissionConfig(AppConfig):
    """Slots of storages, leases and the queue."""

    name = "turku.api.admission"
    label = "admission"
    verbose_name = "Admission"
