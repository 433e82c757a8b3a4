"""C3, C5: a coordinator orders restores. The machine's own configuration alone says if, and where, any is obeyed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.attacks.conftest import StartPing
from tests.integration.agent.conftest import Machine, wait_for
from tests.support.hostile_storage import HostileStorage
from tests.support.v1_client import new_ssh_key
from tests.support.v1_server import V1Api

PROGRESS = "/v2/agent_restore_progress"


@dataclass
class Orders:
    """A coordinator that has restores waiting at each checkin, and says "go on" to whatever it is told."""

    api: V1Api
    directories: list[Any] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.truthful = self.api.answer
        self.api.due = set()

    def answer(self, call: str, message: Any) -> tuple[int, Any]:
        """As V1Api has it."""
        if call == PROGRESS:
            return 200, {"go_on": True}
        status, content = self.truthful(call, message)
        if call == "agent_ping_checkin":
            content["machine"]["restores"] = [self.order(directory) for directory in self.directories]
        return status, content

    def order(self, directory: Any) -> dict[str, Any]:
        return {
            "request": str(uuid4()),
            "source": "etc",
            "storage": {"name": "primary", **self.api.storages["primary"]},
            "directory": str(directory),
            "overwrite": "always",
            "paths": [],
            **self.extra,
        }

    def steps(self) -> list[str]:
        """Return the steps of all of them that the machine reported."""
        return [message["step"] for message in self.api.of_call(PROGRESS)]

    def reasons(self) -> list[str]:
        return [message["message"] for message in self.api.of_call(PROGRESS) if message["step"] == "refused"]


@pytest.fixture
def orders(api: V1Api, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Orders:
    """The machine has a source, and is told of restores."""
    (machine.directory / "own").mkdir()
    machine.source("etc", machine.directory / "own")
    found = Orders(api)
    monkeypatch.setattr(api, "answer", found.answer)
    return found


def everything(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if "var dir" not in str(path) and "sshd" not in str(path))


def test_c3_without_a_setting_no_restore_is_run(
    orders: Orders, machine: Machine, hostile: HostileStorage, open_session: StartPing
) -> None:
    orders.directories = ["/etc", "/", machine.directory / "own", machine.directory / "restored"]
    assert open_session().wait(timeout=60) == 0
    assert orders.steps() == ["picked_up", "refused"] * 4
    assert all("remote_restore is not set" in reason for reason in orders.reasons())
    assert list(hostile.directory.iterdir()) == [], "no session was opened"
    assert not (machine.directory / "restored").exists()


OUTSIDE: dict[str, Callable[[Path], str]] = {
    "elsewhere": lambda base: "/etc",
    "the root": lambda base: "/",
    "a neighbour whose name begins alike": lambda base: f"{base}/allowed-not/x",
    "the directory above": str,
    "dots": lambda base: f"{base}/allowed/../victim",
    "dots in the middle": lambda base: f"{base}/allowed/new/../../victim",
    "a link out of it": lambda base: f"{base}/allowed/link",
    "below a link out of it": lambda base: f"{base}/allowed/link/new/deep",
    "a link to a link": lambda base: f"{base}/allowed/chain/x",
    "a link in a loop": lambda base: f"{base}/allowed/loop/../../victim",
    "a relative name": lambda base: "allowed/x",
    "nothing": lambda base: "",
    "a line break": lambda base: f"{base}/allowed/x\npath = /etc",
}


def test_c3_outside_of_the_named_directories_none_is_run(
    orders: Orders, machine: Machine, hostile: HostileStorage, open_session: StartPing
) -> None:
    base = machine.directory
    for name in ("allowed", "allowed-not", "victim"):
        (base / name).mkdir()
    (base / "allowed/link").symlink_to(base / "victim")
    (base / "allowed/chain").symlink_to("link")
    (base / "allowed/loop").symlink_to("loop")
    machine.configure(remote_restore=[str(base / "allowed")])
    orders.directories = [make(base) for make in OUTSIDE.values()]
    before = everything(base / "allowed"), everything(base / "victim")
    assert open_session().wait(timeout=120) == 0
    assert orders.steps() == ["picked_up", "refused"] * len(OUTSIDE)
    assert list(hostile.directory.iterdir()) == [], "no session was opened"
    assert (everything(base / "allowed"), everything(base / "victim")) == before


def test_c3_inside_of_them_one_is(
    orders: Orders, machine: Machine, hostile: HostileStorage, open_session: StartPing
) -> None:
    base = machine.directory
    (base / "real").mkdir()
    (base / "allowed").symlink_to(base / "real")
    machine.configure(remote_restore=[str(base / "allowed")])
    orders.directories = [base / "allowed/new/deep"]
    orders.extra = {"paths": ["ssh"], "of_machine": str(uuid4())}
    process = open_session()
    request = hostile.request()
    assert request["action"] == "restore_files"
    assert request["restore_files"]["paths"] == ["ssh"]
    assert request["restore_files"]["request"] == orders.api.of_call(PROGRESS)[0]["request"]
    hostile.release()
    assert process.wait(timeout=60) == 0
    # The attacker says nothing, which is no restore: it is put off.
    assert [step for step in orders.steps() if step != "running"] == ["picked_up", "postponed"]


@pytest.mark.parametrize(
    "changed",
    [
        {"paths": ["../../etc/passwd"]},
        {"paths": ["/etc/passwd"]},
        {"paths": [{"b64": "Li4veA=="}]},
        {"source": "../x"},
        {"of_machine": "x\n"},
    ],
    ids=str,
)
def test_c5_an_order_with_unlawful_names_opens_no_session(
    orders: Orders, machine: Machine, hostile: HostileStorage, open_session: StartPing, changed: dict[str, Any]
) -> None:
    machine.configure(remote_restore=[str(machine.directory / "allowed")])
    orders.directories, orders.extra = [machine.directory / "allowed"], changed
    assert open_session().wait(timeout=60) == 0
    assert [step for step in orders.steps() if step != "running"] == ["picked_up", "failed"]
    assert list(hostile.directory.iterdir()) == []
    assert not (machine.directory / "allowed").exists()


@pytest.mark.parametrize("restores", [None, {}, [3], [{"request": "x"}]], ids=str)
def test_c5_orders_that_are_none_keep_no_backup_from_being_made(
    orders: Orders,
    api: V1Api,
    machine: Machine,
    hostile: HostileStorage,
    open_session: StartPing,
    monkeypatch: pytest.MonkeyPatch,
    restores: Any,
) -> None:
    api.due = None

    def answer(call: str, message: Any) -> tuple[int, Any]:
        status, content = orders.truthful(call, message)
        if call == "agent_ping_checkin":
            content["machine"]["restores"] = restores
        return status, content

    monkeypatch.setattr(api, "answer", answer)
    machine.configure(remote_restore=["/"])
    process = open_session()
    assert hostile.request()["action"] == "checkin"
    hostile.release()
    assert process.wait(timeout=60) == 0
    assert orders.steps() == []


def test_c3_another_storage_than_the_machine_knows_gets_no_session(
    orders: Orders, machine: Machine, hostile: HostileStorage, open_session: StartPing
) -> None:
    machine.configure(
        remote_restore=[str(machine.directory / "allowed")],
        storage_host_keys={"other": [" ".join(new_ssh_key().split()[:2])]},
    )
    orders.directories = [machine.directory / "allowed/x"]
    assert open_session().wait(timeout=60) == 0
    assert [step for step in orders.steps() if step != "running"] == ["picked_up", "postponed"]
    assert list(hostile.directory.iterdir()) == []
    assert not (machine.directory / "allowed").exists()
    wait_for(lambda: not machine.processes())
