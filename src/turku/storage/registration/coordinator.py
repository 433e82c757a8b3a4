"""Calls of this storage to the coordinator, also while its secret changes: a session may outlast a secret."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from turku.core import durable
from turku.core.clock import Clock
from turku.core.secret import Secret
from turku.errors import ApiForbidden
from turku.policy.timing import clock_agreement
from turku.protocol.client import ApiClient
from turku.protocol.messages import StorageCredentials
from turku.storage.config.model import StorageConfig

T = TypeVar("T")


def clock_warning(api: ApiClient, clock: Clock) -> str:
    """Return a sentence if this storage's clock differs from the coordinator's last answer, or an empty text."""
    if api.their_time is None:
        return ""
    found = clock_agreement.disagreement(clock.now(), api.their_time, whose="the coordinator")
    return f"the clock of this storage is {found}; snapshots are dated by it: set what is wrong" if found else ""


class Coordinator:
    """The coordinator, called with the configured secret until it accepts another one."""

    def __init__(self, configuration: StorageConfig) -> None:
        self._configuration = configuration
        self._api = configuration.api.client(configuration.state.var_dir)
        self._secret = configuration.identity.secret

    def beyond_contract(self) -> "Coordinator":
        """Return a client for the calls at ``/v2``.

        A coordinator of the existing system answers them with 404 (ApiNotFound).
        """
        other = Coordinator(self._configuration)
        other._api = self._api.beyond_contract()
        other._secret = self._secret
        return other

    def call(self, name: str, message: Callable[[StorageCredentials], Any], answer: type[T]) -> T:
        """Call the coordinator with the message that ``message`` makes of the credentials.

        Raises ApiRefused, ApiUnreachable.
        """
        try:
            return self._call(name, message, answer, self._secret)
        except ApiForbidden:
            from turku.storage.registration import secret_rotation

            for secret in secret_rotation.other_secrets(self._configuration, self._secret):
                with suppress(ApiForbidden):
                    found = self._call(name, message, answer, secret)
                    self._secret = secret
                    return found
            raise

    def learn_keys(self, announced: Sequence[str]) -> bool:
        """Keep the keys that the last answer announced, and return True if they are others than before."""
        if not announced:
            return False
        from turku.protocol import pinned_keys

        var_dir = self._configuration.state.var_dir
        return pinned_keys.learn(
            self._configuration.api.api_key_fingerprints,
            self._configuration.api.accepted_keys(var_dir),
            announced,
            seen_key=self._api.seen_key,
            write=lambda text: durable.write_text(var_dir / pinned_keys.FILE, text),
        )

    def clock_warning(self, clock: Clock) -> str:
        """Return a sentence if the clocks differed at the last answer, or an empty text."""
        return clock_warning(self._api, clock)

    def _call(self, name: str, message: Callable[[StorageCredentials], Any], answer: type[T], secret: Secret) -> T:
        credentials = StorageCredentials(name=self._configuration.identity.name, secret=secret.reveal())
        return self._api.call(name, message(credentials), answer)
