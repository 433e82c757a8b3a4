"""The step that registers a host with a service elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass

from turku.core.setup.host import Host
from turku.core.setup.record import Kind, Made, Record
from turku.core.setup.step import DONE, Finding, State, Step


@dataclass(frozen=True)
class RegistrationStep(Step):
    """A registration, which is repeated with another configuration or join token. Nothing here undoes it."""

    title: str
    address: str
    digest: str
    """Digest of the configuration."""
    register: Callable[[], None]
    token_digest: str = ""
    """Digest of the join token, if one was given. Another service at the same address does not know this host."""
    is_repeated: bool = False
    """True if it is done whatever was registered before."""

    def find(self, host: Host, record: Record) -> Finding:  # noqa: ARG002  (only the record knows)
        made = record.find(Kind.REGISTRATION, self.address)
        if made is None or self.is_repeated:
            return Finding(State.NEEDED)
        if self.token_digest not in ("", made.token_digest):
            return Finding(State.NEEDED, "another join token was given")
        return DONE if made.digest == self.digest else Finding(State.NEEDED, "the configuration changed")

    def apply(self, host: Host, record: Record) -> None:  # noqa: ARG002  (the service is elsewhere)
        made = record.find(Kind.REGISTRATION, self.address)
        if made is not None:
            # A registration that fails now is still due, also for a run without the token.
            record.add(Made(Kind.REGISTRATION, self.address))
        self.register()
        token_digest = self.token_digest or (made.token_digest if made else "")
        record.add(Made(Kind.REGISTRATION, self.address, self.digest, token_digest=token_digest))
