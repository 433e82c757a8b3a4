"""M8 with all programs: a compromised machine, let in by the storage that keeps Alice's files, wants more of them
than the one restore that operators approved."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
from tests.support.fleet import Fleet

from turku.agent import checkin
from turku.agent.config import loading as configuration
from turku.agent.config.model import AgentConfig
from turku.agent.identity import machine_identity
from turku.agent.restore import run as restore_run
from turku.agent.restore import session
from turku.agent.restore.job import RestoreJob
from turku.demo.private_machine import PrivateMachine
from turku.errors import NotInHistory
from turku.protocol.restore_messages import BrowseEnd, BrowseRequest, HistoryRequest, SnapshotChoice

CLAIM = "c" * 32


@dataclass
class Scene:
    """Mallory and Alice back up to one storage."""

    fleet: Fleet
    alice: PrivateMachine
    agent: AgentConfig
    """Mallory's, which does what the attacker likes."""
    scratch: Path

    def order(self, **wanted: object) -> RestoreJob:
        """Return an order for all of Alice's ``etc``, unless said otherwise, without a request."""
        [(address, _sources)] = checkin.by_storage(checkin.active_sources(self.agent))
        target = self.scratch / uuid4().hex
        return replace(RestoreJob("etc", address, target, of_machine=self.alice.uuid), **wanted)  # type: ignore[arg-type]

    def browse(self, what: str, request: str | None) -> list[object]:
        """Return the storage's answers about Alice's ``etc``."""
        order = self.order()
        asked = BrowseRequest(what, ["etc"], of_machine=self.alice.uuid, request=request)  # type: ignore[arg-type]
        address = session.trusted_address(self.agent, order.storage)
        return list(
            session.ask(self.agent, address, HistoryRequest("browse", browse=asked), last=BrowseEnd, timeout_seconds=60)
        )

    def refused(self, order: RestoreJob) -> None:
        with pytest.raises(NotInHistory):
            restore_run.restore(self.agent, order)
        assert not (order.target or Path()).exists()

    def request(self, *arguments: str) -> str:
        """The id of an approved request for Alice's ``etc`` onto Mallory."""
        manage = self.fleet.coordinator.manage
        asked = ("restore", "request", "alice", "etc", "--onto", "mallory", "--directory", "/x", "--reason", "lost")
        made = manage(*asked, "--raw", *arguments).strip()
        manage("restore", "approve", made)
        return made

    def tell(self, request: str, step: str) -> None:
        credentials = machine_identity.existing(self.agent).credentials
        machine = {"uuid": credentials.uuid, "secret": credentials.secret}
        message: Any = {"machine": machine, "request": request, "claim": CLAIM, "step": step}
        url = self.fleet.coordinator.url.removesuffix("/v1") + "/v2/agent_restore_progress"
        assert requests.post(url, json=message, timeout=30).status_code == 200


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("others-history")) as fleet:
        fleet.storage("primary")
        yield fleet


@pytest.fixture
def scene(fleet: Fleet, tmp_path: Path) -> Scene:
    for source in ("etc", "home"):
        (tmp_path / source / "ssh").mkdir(parents=True)
        (tmp_path / source / "ssh/sshd_config").write_text("Port 22\n")
        (tmp_path / source / "shadow").write_text("secret\n")
    (tmp_path / "own").mkdir()
    alice = fleet.machine("alice", {name: {"path": str(tmp_path / name)} for name in ("etc", "home")})
    alice.ping()
    mallory = fleet.machine("mallory", {"etc": {"path": str(tmp_path / "own")}})
    mallory.ping()
    return Scene(fleet, alice, configuration.load(mallory.config_dir), tmp_path / "stolen")


def test_m8_a_machine_gets_what_was_approved_for_it_and_nothing_else(scene: Scene) -> None:
    order = scene.order()
    scene.refused(order)
    with pytest.raises(NotInHistory):
        scene.browse("snapshots", None)

    snapshot = scene.fleet.snapshots(scene.alice, "etc")[-1].name
    approved = scene.request("--path", "ssh", "--snapshot", snapshot)
    part = replace(order, request=approved, paths=(b"ssh",), snapshot=SnapshotChoice(snapshot))
    # Approved, but not picked up.
    scene.refused(part)
    scene.tell(approved, "picked_up")
    for more in (
        replace(part, paths=()),
        replace(part, paths=(b"ssh", b"shadow")),
        replace(part, paths=(b"ss",)),
        replace(part, snapshot=SnapshotChoice()),
        replace(part, source="home"),
    ):
        scene.refused(more)
    with pytest.raises(NotInHistory):
        scene.browse("ls", approved)

    assert restore_run.restore(scene.agent, part).state == "whole"
    assert part.target is not None
    stolen = [path.relative_to(part.target) for path in part.target.rglob("*") if path.is_file()]
    assert stolen == [Path("ssh/sshd_config")]
    scene.tell(approved, "whole")
    scene.refused(replace(part, target=scene.scratch / "again"))
