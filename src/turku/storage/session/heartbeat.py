"""The heartbeats that extend a machine's lease of a slot while its session goes on, and that end it.

A killed session sends no more heartbeats. Its slot is free within five minutes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import Final

from turku.errors import ApiNotFound, TurkuError
from turku.protocol.messages import (
    HEARTBEAT_CALL,
    HEARTBEAT_SECONDS,
    MachineReference,
    StorageCredentials,
    StorageHeartbeatAnswer,
    StorageHeartbeatRequest,
)
from turku.storage.config.model import StorageConfig
from turku.storage.registration.coordinator import Coordinator

_LAST_WORD_SECONDS: Final = 10.0
"""The time that a session waits for its last heartbeat. The lease ends by itself."""
_LOG = logging.getLogger(__name__)


class Heartbeat:
    """Sends heartbeats in a thread from ``begin`` to the end of the block. A context manager.

    A coordinator of the existing system does not know the call, and is asked once.
    """

    def __init__(self, configuration: StorageConfig, uuid: str, *, pause_seconds: float = HEARTBEAT_SECONDS) -> None:
        self._configuration = configuration
        self._uuid = uuid
        self._pause_seconds = pause_seconds
        self._left: set[str] = set()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_known = True
        self._is_leased = True

    def __enter__(self) -> Heartbeat:
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(_LAST_WORD_SECONDS)

    def begin(self, sources: Iterable[str]) -> None:
        """Begin the heartbeats of a lease for these sources. Without sources there is no lease."""
        self._left = set(sources)
        if self._left:
            self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
            self._thread.start()

    def reported(self, source: str) -> None:
        """Note that the coordinator has the source's report. With the last one it ends the lease by itself."""
        self._left.discard(source)

    def _beat(self) -> None:
        coordinator = Coordinator(self._configuration).beyond_contract()
        while self._is_known and not self._over.wait(self._pause_seconds):
            self._tell(coordinator, ended=False)
        if self._is_known and self._left:
            self._tell(coordinator, ended=True)

    def _tell(self, coordinator: Coordinator, *, ended: bool) -> None:
        def message(credentials: StorageCredentials) -> StorageHeartbeatRequest:
            return StorageHeartbeatRequest(credentials, MachineReference(self._uuid), ended)

        try:
            answer = coordinator.call(HEARTBEAT_CALL, message, StorageHeartbeatAnswer)
        except ApiNotFound as error:
            # Existing coordinators do not have the call.
            self._is_known = False
            _LOG.debug("heartbeat: %s", error.message)
        except TurkuError as error:
            _LOG.debug("heartbeat: %s", error.message)
        except Exception:
            # The next one may succeed. Without any, the session loses its slot within minutes.
            _LOG.exception("heartbeat: internal error, the heartbeat was not sent")
        else:
            if not ended and not answer.leased and self._is_leased:
                _LOG.warning(
                    "the coordinator got no heartbeat of this session in time, and may give its slot to another machine"
                )
            self._is_leased = answer.leased
