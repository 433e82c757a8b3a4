"""The hosts of the tutorial, as they are after its last step."""

from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.hosts.host import Host, Network
from tests.hosts.releases import Release
from tests.hosts.volume import Volume

if TYPE_CHECKING:
    from tests.hosts.tutorial import Followed

HOSTS: Final = {
    "turku": Release.DEBIAN12,
    "storage": Release.DEBIAN13,
    "web-0": Release.DEBIAN12,
    "web-1": Release.DEBIAN13,
}
"""The hosts of the tutorial: the coordinator, the storage, the first machine, and a further one."""
VOLUME: Final = "/srv/turku"


class Fleet:
    """Copies of the tutorial's hosts. Each is booted when it is first named."""

    def __init__(self, followed: "Followed", network: Network, stack: ExitStack, directory: Path) -> None:
        self.followed = followed
        self.network = network
        self.stack = stack
        self.directory = directory

    @cached_property
    def coordinator(self) -> Host:
        return self._booted("turku")

    @cached_property
    def volume(self) -> Volume:
        return self.stack.enter_context(Volume(self.directory / "volume", image=self.followed.volume_image))

    @cached_property
    def storage(self) -> Host:
        return self._booted("storage", binds={VOLUME: self.volume.mount_point})

    @cached_property
    def machine(self) -> Host:
        return self._booted("web-0")

    @cached_property
    def second_machine(self) -> Host:
        return self._booted("web-1")

    def _booted(self, name: str, *, binds: dict[str, Path] | None = None) -> Host:
        layers = [HOSTS[name].root, self.followed.changes(name)]
        return self.stack.enter_context(Host(name, layers, self.network, self.directory, binds=binds))
