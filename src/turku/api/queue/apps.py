"""The app ``queue``."""

from django.apps import AppConfig


class QueueApp(AppConfig):
    """Slots of storages, leases and the queue."""

    name = "turku.api.queue"
    label = "queue"
    verbose_name = "Queue"
