"""A small cast for tests that talk to the coordinator through Django's test client."""

import io
import json
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

from django.test import Client
from tests.support.v1_client import V1Machine, V1Storage

from turku.api.cli import PROGRAM
from turku.api.fleet.identity import auths
from turku.api.fleet.models import AuthKind
from turku.core.clock import SYSTEM_CLOCK


def post(call: str, message: Any) -> tuple[int, Any]:
    """Status and answer of one call."""
    response = Client(raise_request_exception=False).post(
        f"/v1/{call}", json.dumps(message), content_type="application/json"
    )
    return response.status_code, json.loads(response.content)


def turku_api(*arguments: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    with redirect_stdout(io.StringIO()) as output:
        code = PROGRAM.main(arguments)
    return code, output.getvalue()


@dataclass
class Cast:
    """Alice, a machine, and Bob, a storage. Both are registered."""

    alice: V1Machine
    bob: V1Storage
    machine_secret: str
    storage_secret: str

    def machine(self, **attributes: Any) -> V1Machine:
        """Another machine that may register."""
        return V1Machine(post, auth=self.machine_secret, **attributes)

    def storage(self, name: str, **attributes: Any) -> V1Storage:
        """Another storage that may register."""
        return V1Storage(post, auth=self.storage_secret, name=name, **attributes)


def introduce() -> Cast:
    """The cast, with Alice's sources ``etc`` and ``home`` due."""
    now = SYSTEM_CLOCK.now()
    machine_secret = auths.create(AuthKind.MACHINE, "machines", now=now)[1].reveal()
    storage_secret = auths.create(AuthKind.STORAGE, "storages", now=now)[1].reveal()
    alice = V1Machine(post, auth=machine_secret)
    bob = V1Storage(post, auth={"name": "storages", "secret": storage_secret})
    bob.update_config()
    alice.update_config({"etc": {"path": "/etc"}, "home": {"path": "/home"}})
    return Cast(alice, bob, machine_secret, storage_secret)
