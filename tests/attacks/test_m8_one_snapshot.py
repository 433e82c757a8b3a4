"""M8, M12: a permission for one snapshot, or for some paths, of another machine's source tells of nothing else.

Real coordinator, storage, sshd and agent. Mallory runs a restore that operators approved, and asks for all that the
protocol has words for: no row, total or error message may name, measure or date what was not approved.
"""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from tests.attacks.test_m8_others_history import Scene
from tests.support.fleet import Fleet
from tests.support.landed_restore import TEMPORARY_NAME

from turku.agent.config import loading as configuration
from turku.agent.identity import machine_identity
from turku.agent.restore import run as restore_run
from turku.agent.restore import session
from turku.agent.restore.job import PlannedRestore
from turku.errors import NotInHistory, RestoreFailed, TurkuError
from turku.protocol.restore_messages import (
    BrowseEnd,
    BrowseRequest,
    FileRestoreRequest,
    HistoryRequest,
    RestoreEnd,
    SnapshotChoice,
)

OLDER, NEWER = "OLD-PASSWORDS", "SALARIES"
LATEST = SnapshotChoice()


class History(Scene):
    """Alice has three snapshots, and the middle one is what an operator approves."""

    before = approved = after = ""

    def ask(self, request: str, **words: Any) -> list[Any]:
        """Return the answers to a browse request, or raise the refusal."""
        wanted = BrowseRequest(sources=["etc"], of_machine=self.alice.uuid, request=request, **words)
        return self.answers(HistoryRequest("browse", browse=wanted))

    def list_only(self, request: str, **fields: Any) -> list[Any]:
        """Return the answers to a restore that writes nothing."""
        wanted = FileRestoreRequest(
            "etc", TEMPORARY_NAME, list_only=True, of_machine=self.alice.uuid, request=request, **fields
        )
        return self.answers(HistoryRequest("restore_files", restore_files=wanted))

    def answers(self, message: HistoryRequest) -> list[Any]:
        address = session.trusted_address(self.agent, self.order().storage)
        last = BrowseEnd if message.action == "browse" else RestoreEnd
        return list(session.ask(self.agent, address, message, last=last, timeout_seconds=60))

    def back_up(self) -> str:
        self.fleet.make_due(self.alice, "etc")
        self.alice.ping()
        return self.fleet.snapshots(self.alice, "etc")[-1].name

    @property
    def directory(self) -> Path:
        return self.fleet.snapshots(self.alice, "etc")[-1].parent

    def offered(self) -> list[Any]:
        """Return the restores that the coordinator offers to Mallory's machine."""
        credentials = machine_identity.existing(self.agent).credentials
        message = {"machine": {"uuid": credentials.uuid, "secret": credentials.secret}}
        url = self.fleet.coordinator.url.removesuffix("/v1") + "/v2/agent_restores"
        return list(requests.post(url, json=message, timeout=30).json()["restores"])

    def running(self, *words: str) -> str:
        request = self.request(*words)
        self.tell(request, "picked_up")
        return request


def said(ask: Any, request: str, **words: Any) -> str:
    """All that is told for an answer, a refusal included."""
    try:
        return repr(ask(request, **words))
    except TurkuError as error:
        return f"REFUSED {error.message} {error.details} {error.hint}"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("one-snapshot")) as fleet:
        fleet.storage("primary")
        yield fleet


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "etc"
    (source / "ssh").mkdir(parents=True)
    (source / "ssh/sshd_config").write_text("Port 22\n")
    (source / "ssh/key").write_text("key\n")
    (source / "shadow").write_text("secret\n")
    os.link(source / "ssh/key", source / "linked-beside")
    (source / OLDER).write_text("in the one before")
    os.utime(source / "ssh", (1_700_000_000, 1_700_000_000))
    return source


@pytest.fixture
def scene(fleet: Fleet, tmp_path: Path, source: Path) -> Iterator[History]:
    (tmp_path / "own").mkdir()
    alice = fleet.machine("alice", {name: {"path": str(source)} for name in ("etc", "home")})
    mallory = fleet.machine("mallory", {"etc": {"path": str(tmp_path / "own")}})
    scene = History(fleet, alice, configuration.load(mallory.config_dir), tmp_path / "stolen")
    scene.before = scene.back_up()
    (source / OLDER).unlink()
    (source / "ssh/sshd_config").write_text("Port 222\n")
    scene.approved = scene.back_up()
    (source / NEWER).write_text("in the one after")
    (source / "ssh/sshd_config").write_text("Port 22222\n")
    scene.after = scene.back_up()
    yield scene
    # The next test's machines have the same names.
    for name in ("alice", "mallory"):
        fleet.coordinator.sql("UPDATE fleet_machine SET unit_name = ? WHERE unit_name = ?", f"former {name}", name)
        shutil.rmtree(fleet.directory / name)


def test_m8_a_grant_for_one_snapshot_shows_no_other(scene: History) -> None:
    # All that can be asked is in tests/integration/storage/test_history_view.py, without the programs around it.
    request = scene.running("--snapshot", scene.approved)
    approved, after = SnapshotChoice(scene.approved), SnapshotChoice(scene.after)
    shown = [
        said(scene.ask, request, listing="snapshots"),
        said(scene.ask, request, listing="versions", path=NEWER).replace(f"{NEWER} was in no", ""),
        said(scene.ask, request, listing="versions", path="ssh/sshd_config"),
        said(scene.ask, request, listing="find", pattern="*"),
        said(scene.ask, request, listing="ls", snapshot=after),
        said(scene.ask, request, listing="ls", snapshot=SnapshotChoice("never")),
        said(scene.ask, request, listing="diff", snapshot=approved, other=after),
        said(scene.list_only, request, snapshot=SnapshotChoice(at="2000-01-01")),
        said(scene.list_only, request, snapshot=approved, paths=["SALARIE"]),
        said(scene.list_only, request, snapshot=approved),
    ]
    for text in shown:
        for secret in (scene.before, scene.after, NEWER, OLDER, scene.before[4:], scene.after[4:]):
            assert secret not in text, text
    for text in shown[4:8]:
        assert text.startswith("REFUSED")
    # And what was approved is there.
    assert scene.approved in shown[0]
    assert f"size_bytes={len('Port 222') + 1}, " in shown[2]
    assert "sshd_config" in shown[9]


def test_m8_a_grant_for_some_paths_shows_no_other(scene: History, source: Path) -> None:
    request = scene.running("--snapshot", scene.approved, "--path", "ssh/key")
    approved = SnapshotChoice(scene.approved)
    shown = [
        said(scene.ask, request, listing="snapshots"),
        said(scene.ask, request, listing="find", pattern="*"),
        said(scene.ask, request, listing="ls", snapshot=approved, is_recursive=True),
        said(scene.ask, request, listing="versions", path="ssh/sshd_config").replace("ssh/sshd_config was in no", ""),
        said(scene.list_only, request, snapshot=approved),
        said(scene.list_only, request, snapshot=approved, paths=["ssh/ke"]),
        said(scene.list_only, request, snapshot=approved, paths=["ssh/key"]),
    ]
    for text in shown:
        for secret in ("shadow", "sshd_config", "linked-beside", str((source / "ssh").stat().st_mtime_ns), "files=4"):
            assert secret not in text, text
    for text in shown[3:6]:
        assert text.startswith("REFUSED")
    for text in (*shown[1:3], shown[6]):
        assert "'ssh/key'" in text


def test_m8_a_machine_does_not_learn_which_sources_another_has(scene: History) -> None:
    request = scene.running("--snapshot", scene.approved)

    def answer(source: str) -> str:
        wanted = BrowseRequest("snapshots", [source], of_machine=scene.alice.uuid, request=request)
        with pytest.raises(NotInHistory) as refused:
            scene.answers(HistoryRequest("browse", browse=wanted))
        return f"{refused.value.message}{refused.value.hint}".replace(source, "SOURCE")

    assert answer("home") == answer("nothing")


@pytest.mark.parametrize("words", [(), ("--at", "1 second ago")], ids=["latest", "a moment"])
def test_m8_the_snapshot_of_a_choice_is_settled_when_it_is_used_first(
    scene: History, source: Path, words: tuple[str, ...]
) -> None:
    if words:
        # The newest snapshot may have been made within that second.
        time.sleep(1.1)
    request = scene.running(*words)
    choice = LATEST
    if words:
        [(moment,)] = scene.fleet.query(
            "SELECT moment FROM restores_restorerequest WHERE id = ?", scene.fleet.coordinator.key(request)
        )
        choice = SnapshotChoice(at=moment)
    [row] = scene.ask(request, listing="snapshots")[:-1]
    assert row.name == scene.after

    (source / "ssh/sshd_config").write_text("made since it was approved\n")
    newer = scene.back_up()
    for shown in (scene.ask(request, listing="ls", snapshot=choice), scene.list_only(request, snapshot=choice)):
        assert newer not in repr(shown)
        assert scene.after in repr(shown)
    # A later run of the agent is told the name, and gets that one.
    scene.tell(request, "postponed")
    scene.fleet.execute(
        "UPDATE restores_restorerequest SET date_offered = date_requested WHERE id = ?",
        scene.fleet.coordinator.key(request),
    )
    [order] = scene.offered()
    assert order["snapshot"] == {"name": scene.after}
    scene.tell(request, "picked_up")
    for wanted in (choice, SnapshotChoice(scene.after)):
        target = scene.scratch / (wanted.name or "again")
        restored = replace(scene.order(), request=request, snapshot=wanted, target=target)
        assert restore_run.restore(scene.agent, restored).state == "whole"
        assert (target / "ssh/sshd_config").read_text() == "Port 22222\n"
    with pytest.raises(NotInHistory):
        restore_run.restore(scene.agent, replace(scene.order(), request=request, snapshot=SnapshotChoice(newer)))

    # Nor does it become another one when it is gone.
    os.rename(scene.directory / scene.after, scene.directory / f".deleting-{scene.after}")
    refused = said(scene.ask, request, listing="snapshots")
    assert refused.startswith("REFUSED")
    assert newer not in refused
    assert scene.approved not in refused


@pytest.mark.parametrize("swapped_for", ["a directory", "a link"])
def test_m8_the_tree_that_was_planned_is_the_one_that_is_sent(scene: History, tmp_path: Path, swapped_for: str) -> None:
    request = scene.running("--snapshot", scene.approved)
    order = replace(scene.order(), request=request, snapshot=SnapshotChoice(scene.approved))
    tree = scene.directory / scene.approved

    def swap(_plan: PlannedRestore) -> bool:
        tree.rename(tree.with_name("moved"))
        if swapped_for == "a link":
            tree.symlink_to(scene.after)
        else:
            shutil.copytree(scene.directory / scene.after, tree)
        return True

    with pytest.raises(RestoreFailed, match=r"replaced meanwhile|cannot be opened"):
        restore_run.restore(scene.agent, order, approve=swap)
    assert order.target is not None
    assert [path for path in order.target.rglob("*") if path.is_file()] == []
