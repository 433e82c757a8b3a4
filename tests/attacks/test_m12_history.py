"""M12: a machine that browses history sees its own and no other one's, and changes nothing by it.

Real sshd, storage and coordinator. Mallory is a compromised machine, whose history lies beside Alice's.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.fleet import Fleet
from tests.support.landed_restore import TEMPORARY_NAME
from tests.support.trees import differences

from turku.core import command
from turku.demo.private_machine import PrivateMachine

SECRET = "what only Alice may read"
WANTED = {"source": "etc", "temporary": TEMPORARY_NAME}


@dataclass
class Scene:
    fleet: Fleet
    alice: PrivateMachine
    mallory: PrivateMachine
    before: Path

    def ask(self, action: str, **request: Any) -> list[dict[str, Any]]:
        """Return the answers to Mallory's key."""
        required = {"temporary": TEMPORARY_NAME} if action == "restore_files" else {}
        return self.send({"action": action, action: required | request})

    def send(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        sshd = self.fleet.sshds["primary"]
        argv = sshd.client(self.mallory.var_dir / "ssh_key", "-T", command=("turku-ping-remote",))
        ended = subprocess.run(
            argv, input=json.dumps(message).encode() + b"\n.\ngo\n", capture_output=True, timeout=60, check=False
        )
        assert SECRET.encode() not in ended.stdout + ended.stderr
        assert b"Traceback" not in ended.stderr
        assert b"internal" not in ended.stderr, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()] or [{"row": "none", "code": ended.returncode}]

    @property
    def volume(self) -> Path:
        return self.fleet.storages["primary"].machine_directory(self.alice.uuid).resolve().parent


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("history")
    with Fleet(directory / "fleet") as fleet:
        fleet.storage("primary")
        machines = []
        for name in ("alice", "mallory"):
            tree = directory / name
            (tree / "directory").mkdir(parents=True)
            (tree / "directory" / "file").write_text(SECRET if name == "alice" else "Mallory's")
            machine = fleet.machine(name, {"etc": {"path": str(tree)}})
            machines.append(machine)
        alice, mallory = machines
        alice.ping()
        # Links to where Alice's history lies, in Mallory's own.
        volume = fleet.storages["primary"].machine_directory(alice.uuid).resolve().parent
        (directory / "mallory" / "up").symlink_to(f"../../{alice.uuid}/etc.snapshots/latest")
        (directory / "mallory" / "absolute").symlink_to(volume / alice.uuid / "etc.snapshots" / "latest")
        mallory.ping()
        found = Scene(fleet, alice, mallory, directory / "before")
        command.run(["cp", "-a", found.volume, found.before], timeout_seconds=60)
        yield found


def refused(answers: list[dict[str, Any]]) -> str:
    """The code by which it was refused, before there was any other answer."""
    [answer] = answers
    assert answer["row"] == "refusal", answer
    assert str(answer["message"])
    return str(answer["code"])


def test_m12_a_machine_has_its_own_history(scene: Scene) -> None:
    # Else the others prove nothing.
    rows = scene.ask("browse", listing="ls", sources=["etc"], path="directory")
    assert [row.get("path") for row in rows] == ["directory/file", None]
    plan, *_ = scene.ask("restore_files", source="etc", paths=["directory"], list_only=True)
    assert plan["row"] == "plan"


@pytest.mark.parametrize("what", ["snapshots", "ls", "versions", "find", "diff"])
def test_m12_another_machines_is_not_shown(scene: Scene, what: str) -> None:
    for more in ({}, {"request": "7c2a5d0e-9a53-4f7a-8f5d-3f1f2b6f8f01"}):
        answers = scene.ask(
            "browse",
            listing=what,
            sources=["etc"],
            path="directory/file",
            pattern="*",
            of_machine=scene.alice.uuid,
            **more,
        )
        assert refused(answers) in ("not-in-history", "api-refused")


@pytest.mark.parametrize("list_only", [True, False])
def test_m12_nor_handed_out(scene: Scene, list_only: bool) -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander:
        try:
            for owner in (scene.alice.uuid, scene.alice.uuid.upper()):
                answers = scene.send(
                    {
                        "action": "restore_files",
                        "port": 50_000,
                        "module": {"username": "user", "password": "password"},
                        "restore_files": {**WANTED, "of_machine": owner, "list_only": list_only},
                    }
                )
                # Without a tunnel of its own a port is refused first.
                assert answers[0] == {"row": "none", "code": 68} or refused(answers) == "not-in-history"
        finally:
            bystander.kill()


@pytest.mark.parametrize(
    "source",
    [
        "../{alice}/etc",
        "..",
        ".",
        "",
        "/etc",
        "etc/../../{alice}/etc",
        "etc.snapshots",
        "etc\0",
        "e" * 400,
        ".catalogs",
    ],
)
def test_m12_a_sources_name_leads_nowhere_else(scene: Scene, source: str) -> None:
    name = source.format(alice=scene.alice.uuid)
    if len(name) % 2:
        answers = scene.ask("browse", listing="ls", sources=[name])
    else:
        answers = scene.ask("restore_files", source=name, list_only=True)
    assert refused(answers) == "invalid-value"


@pytest.mark.parametrize(
    "snapshot", ["../../{alice}/etc.snapshots/latest", "..", ".", "/", ".catalogs", "../etc", "latest/..", "\0", "*"]
)
def test_m12_nor_a_snapshots(scene: Scene, snapshot: str) -> None:
    name = snapshot.format(alice=scene.alice.uuid)
    if len(name) % 2:
        answers = scene.ask("restore_files", source="etc", snapshot={"name": name}, list_only=True)
    else:
        answers = scene.ask("browse", listing="ls", sources=["etc"], snapshot={"name": name})
    assert refused(answers) == "not-in-history"


@pytest.mark.parametrize(
    "path",
    [
        "../../{alice}/etc.snapshots",
        "/etc/shadow",
        "directory/../../x",
        "..",
        "a\0b",
        "up/directory/file",
        "absolute/directory/file",
        {"b64": "Li4vLi4veA=="},
        {"b64": "/w=="},
        "x" * 10_000,
    ],
    ids=lambda path: str(path)[:20],
)
def test_m12_nor_a_path(scene: Scene, path: Any) -> None:
    wanted = path.format(alice=scene.alice.uuid) if isinstance(path, str) else path
    answers = scene.ask("restore_files", source="etc", paths=[wanted], list_only=True)
    assert refused(answers) in ("invalid-value", "not-in-history")


@pytest.mark.parametrize("what", ["ls", "versions"])
@pytest.mark.parametrize("path", ["../../{alice}/etc.snapshots", "up/directory/file"])
def test_m12_nor_a_path_that_is_browsed(scene: Scene, what: str, path: str) -> None:
    answers = scene.ask("browse", listing=what, sources=["etc"], path=path.format(alice=scene.alice.uuid))
    assert refused(answers) in ("invalid-value", "not-in-history")


@pytest.mark.parametrize(
    "message",
    [
        {"action": "browse"},
        {"action": "restore_files"},
        {"action": "restore_files", "restore_files": WANTED},
        {"action": "restore_files", "restore_files": {"source": "etc"}},
        {"action": "restore_files", "restore_files": {"source": "etc", "temporary": "../x"}},
        {"action": "restore_files", "restore_files": {**WANTED, "paths": ["x"] * 1001}},
        {"action": "browse", "browse": {"listing": "find", "sources": ["etc"], "limit": 0}},
        {"action": "browse", "browse": {"listing": "find", "sources": []}},
        {"action": "browse", "browse": {"listing": "ls", "sources": ["etc", "etc"]}},
        {"action": "browse", "browse": {"listing": "remove", "sources": ["etc"]}},
        {"action": "browse", "browse": {"listing": "find", "sources": ["etc"], "pattern": "*a" * 4000}},
        {"action": "restore_files", "port": 22, "restore_files": WANTED},
    ],
    ids=lambda message: str(message)[:70],
)
def test_m12_a_malformed_request_ends_in_a_sentence(scene: Scene, message: dict[str, Any]) -> None:
    answers = scene.send(message)
    assert answers[-1]["row"] in ("none", "refusal", "browse-end")
    assert answers[-1].get("code", 0) not in (70, "internal")


def test_m12_and_nothing_of_it_has_changed_anything(scene: Scene) -> None:
    assert differences(scene.before, scene.volume) == []
    assert os.listdir(scene.volume / scene.alice.uuid)
