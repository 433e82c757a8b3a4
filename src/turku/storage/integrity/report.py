"""The integrity report to the coordinator: damages, scrubs and drills of the sources kept here."""

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
    """The outcome of sending a report."""

    NOW = "now"
    LATER = "later"
    """The coordinator could not be reached. The report must be sent again."""
    NEVER = "never"
    """The coordinator has no such call, as in the existing system, or no such machine.

    The storage goes on without it.
    """


def send(configuration: StorageConfig, machine: str, reports: Mapping[str, SourceIntegrity]) -> Delivery:
    """Send the reports, and return what became of them. A failure is a line on the log, and nothing is raised."""
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
            _LOG.warning("%s: not reported to the coordinator: %s %s", machine, error.message, error.details)
            return Delivery.LATER
        except ApiUnreachable as error:
            _LOG.warning("%s: not reported to the coordinator yet: %s", machine, error.message)
            return Delivery.LATER
    return Delivery.NOW


def _parts(reports: Mapping[str, SourceIntegrity]) -> list[dict[str, SourceIntegrity]]:
    """Split the reports so that no message has too many damages, with one source in each message."""
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
