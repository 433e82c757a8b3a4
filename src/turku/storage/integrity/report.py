"""Telling the coordinator what is proven of the sources kept here: damage, verification, drills."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import StrEnum

from turku.errors import ApiNotFound, ApiRefused, ApiUnreachable
from turku.protocol.integrity_messages import (
    CALL,
    DAMAGES_LIMIT,
    MachineIntegrity,
    SourceIntegrity,
    StorageIntegrityReportRequest,
)
from turku.protocol.messages import Empty, StorageCredentials
from turku.storage.config.model import StorageConfig
from turku.storage.registration.coordinator import Coordinator

_LOG = logging.getLogger(__name__)


class Delivery(StrEnum):
    """Whether the coordinator knows what is proven."""

    NOW = "now"
    LATER = "later"
    """It could not be asked: to be sent again."""
    NEVER = "never"
    """It has no such call, as the existing system's, or no such machine: the storage goes on without it."""


def send(configuration: StorageConfig, machine: str, reports: Mapping[str, SourceIntegrity]) -> Delivery:
    """Whether the coordinator knows it all now; a line on the log where it does not. Nothing is raised."""
    api = Coordinator(configuration).beyond_contract()
    for part in _parts(reports):

        def message(credentials: StorageCredentials, part: Mapping[str, SourceIntegrity] = part) -> object:
            return StorageIntegrityReportRequest(credentials, MachineIntegrity(machine, dict(part)))

        try:
            api.call(CALL, message, Empty)
        except ApiNotFound:
            _LOG.info(
                "%s: not reported to the coordinator: it has no call %s, or no such machine or source here any more",
                machine,
                CALL,
            )
            return Delivery.NEVER
        except ApiRefused as error:
            _LOG.warning("%s: not told to the coordinator: %s %s", machine, error.message, error.details)
            return Delivery.LATER
        except ApiUnreachable as error:
            _LOG.warning("%s: not told to the coordinator yet: %s", machine, error.message)
            return Delivery.LATER
    return Delivery.NOW


def _parts(reports: Mapping[str, SourceIntegrity]) -> list[dict[str, SourceIntegrity]]:
    """The reports, none with more damages than a message takes: one source a message, as each is found by itself."""
    parts: list[dict[str, SourceIntegrity]] = []
    for name, report in reports.items():
        chunks = [report.damages[at : at + DAMAGES_LIMIT] for at in range(0, len(report.damages), DAMAGES_LIMIT)]
        for number, damages in enumerate(chunks or [[]]):
            is_last = number == max(len(chunks) - 1, 0)
            parts.append(
                {
                    name: SourceIntegrity(
                        damages=damages,
                        verified=report.verified if is_last else None,
                        drill=report.drill if is_last else None,
                    )
                }
            )
    return parts
