"""Machines and storages that recognize the coordinator by its key, as they reported it."""

from dataclasses import dataclass

from turku.api.fleet.models import Machine, Storage
from turku.core.units import count_of


@dataclass(frozen=True)
class Acceptance:
    """The numbers of those that pin a key, and of those among them that accept one of the coordinator's keys."""

    machines: int
    pinning_machines: int
    storages: int
    pinning_storages: int

    @property
    def is_complete(self) -> bool:
        """True if nobody would be left behind."""
        return self.machines == self.pinning_machines and self.storages == self.pinning_storages

    def __str__(self) -> str:
        machines = f"{self.machines} of {count_of(self.pinning_machines, 'machine')}"
        storages = f"{self.storages} of {count_of(self.pinning_storages, 'storage')}"
        return f"{machines} and {storages} that pin a key accept it"


def acceptance(fingerprint: str) -> Acceptance:
    """Return how many active machines and storages accept the key."""
    counts = []
    for model in (Machine, Storage):
        pinning = model._default_manager.filter(active=True).exclude(pinned_keys="")
        counts += [pinning.filter(pinned_keys__contains=fingerprint).count(), pinning.count()]
    return Acceptance(*counts)
