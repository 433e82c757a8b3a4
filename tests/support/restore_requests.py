"""Restore requests as an operator makes them, and the machine's side of the calls about them.

request = ask_for(alice_row, "etc")                         a request that waits for approval
agent = Pickup(cast.alice)                                  the machine
agent.offered()                                             the requests that a checkin offers
agent.tell(request, "picked_up")                            {"go_on": True}
"""

import json
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from django.test import Client
from tests.support.v1_client import Refused, V1Machine, V1Storage, ask

from turku.api.audit import log
from turku.api.audit.models import ActorKind
from turku.api.backups.models import Source
from turku.api.fleet.models import Machine
from turku.api.restores import new_request
from turku.api.restores.models import RestoreRequest
from turku.core.clock import SYSTEM_CLOCK

ANN, BEN, EVE = (log.Actor(ActorKind.PERSON, name) for name in ("ann", "ben", "eve"))


def post_v2(call: str, message: Any) -> tuple[int, Any]:
    """Status and answer of one call at /v2."""
    response = Client(raise_request_exception=False).post(
        f"/v2/{call}", json.dumps(message), content_type="application/json"
    )
    return response.status_code, json.loads(response.content)


def row_of(machine: V1Machine) -> Machine:
    """The coordinator's row."""
    return Machine.objects.select_related("storage").get(uuid=machine.uuid)


def ask_for(
    machine: V1Machine, source: str = "etc", *, actor: log.Actor = ANN, is_superuser: bool = False, **wish: Any
) -> RestoreRequest:
    """A request by Ann for ``/srv/restored``, unless said otherwise."""
    found = Source.objects.select_related("machine").get(machine__uuid=machine.uuid, name=source)
    said = {"directory": "/srv/restored", "reason": "deleted by mistake", **wish}
    return new_request.create(
        new_request.RequestedRestore(source=found, **said),
        actor=actor,
        may_choose_any_machine=is_superuser,
        now=SYSTEM_CLOCK.now(),
    )


@dataclass
class Pickup:
    """A run of a machine's agent."""

    machine: V1Machine
    claim: str = field(default_factory=lambda: uuid4().hex)

    def offered(self) -> list[Any]:
        """The restores in the answer to a checkin."""
        credentials = {"machine": {"uuid": self.machine.uuid, "secret": self.machine.secret}}
        answer = ask(self.machine.post, "agent_ping_checkin", credentials)["machine"]
        return list(answer.get("restores", []))

    def tell(self, request: RestoreRequest | str, step: str, **fields: Any) -> Any:
        """Return the answer to a report. Raises Refused."""
        credentials = {"uuid": self.machine.uuid, "secret": self.machine.secret}
        key = request if isinstance(request, str) else str(request.pk)
        message = {"machine": credentials, "request": key, "claim": self.claim, "step": step, **fields}
        return ask(post_v2, "agent_restore_progress", message)


def request_access(
    storage: V1Storage, machine: V1Machine, source: str = "etc", *, action: str = "restore", **asked: Any
) -> Any:
    """Return the answer to a storage that asks if it may serve the machine. Raises Refused."""
    message = {
        "storage": {"name": storage.name, "secret": storage.secret},
        "machine": {"uuid": machine.uuid},
        "action": action,
        "source": source,
        **asked,
    }
    return ask(post_v2, "storage_access_request", message)


__all__ = ["ANN", "BEN", "EVE", "Pickup", "Refused", "ask_for", "post_v2", "request_access", "row_of"]
