"""The step that registers a host with a service elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass

from turku.core.setup.host import Host
from turku.core.setup.record import Kind, Made, Record
from turku.core.setup.step import DONE, Finding, State, Step


@dataclass(frozen=True)
class RegistrationStep(Step):
    """A registration, which is repeated when the configuration changed. Nothing here undoes it."""

    title: str
    address: str
    digest: str
    """Digest of the configuration. Another service at the same address does not know this host."""
    register: Callable[[], None]
    is_repeated: bool = False
    """True if it is done whatever was registered before."""

    def find(self, host: Host, record: Record) -> Finding:  # noqa: ARG002  (only the record knows)
        made = record.find(Kind.REGISTRATION, self.address)
        if made is None or self.is_repeated:
            return Finding(State.NEEDED)
        return DONE if made.digest == self.digest else Finding(State.NEEDED, "the configuration changed")

    def apply(self, host: Host, record: Record) -> None:  # noqa: ARG002  (the service is elsewhere)
        self.register()
        record.add(Made(Kind.REGISTRATION, self.address, self.digest))
