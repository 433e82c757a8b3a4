"""C3: no answer of a coordinator makes a machine offer anything for writing, or anything but its own sources."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.attacks.conftest import StartPing
from tests.integration.agent.conftest import Machine
from tests.support.hostile_storage import HostileStorage
from tests.support.v1_server import V1Api

ORDERS = {
    "action": "restore",
    "restore": True,
    "restore_path": "/",
    "restore_module": "etc",
    "read_only": False,
    "read only": "no",
    "writable": True,
    "rsyncd_user": "root",
    "rsyncd_command": ["touch", "{witness}"],
    "ssh_command": ["touch", "{witness}"],
    "gonogo_program": ["touch", "{witness}"],
    "config": {"rsyncd_local_address": "0.0.0.0", "restore_path": "/"},
}


@pytest.fixture
def ordering(api: V1Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the coordinator put its orders at every level of what it says."""
    truthful = api.answer
    orders = json.loads(json.dumps(ORDERS).replace("{witness}", str(tmp_path / "witness")))

    def answer(call: str, message: Any) -> tuple[int, Any]:
        status, content = truthful(call, message)
        if call == "agent_ping_checkin":
            sources = content["machine"]["scheduled_sources"]
            for source in sources.values():
                source.update(orders, path=str(tmp_path / "other"))
                source["storage"].update(orders)
            made_up = dict(next(iter(sources.values())))
            sources["turku-restore"] = sources["other"] = sources["etc]\nread only = no\n["] = made_up
            content["machine"].update(orders)
            content.update(orders)
        return status, content

    monkeypatch.setattr(api, "answer", answer)


@pytest.mark.usefixtures("ordering")
def test_c3_an_answer_opens_nothing_for_writing_and_moves_no_source(
    machine: Machine, hostile: HostileStorage, open_session: StartPing, tmp_path: Path
) -> None:
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    machine.source("etc", tmp_path / "own")
    process = open_session()
    request = hostile.request()
    assert request["action"] == "checkin"
    assert set(request["sources"]) == {"etc"}
    for module in ("etc", "turku-restore", "other"):
        assert hostile.rsync("-a", f"{tmp_path / 'other'}/", f"rsync://{{}}/{module}/").returncode != 0
    assert hostile.rsync("-a", "rsync://{}/etc/", f"{tmp_path / 'read'}/").returncode == 0
    assert (tmp_path / "read/file").read_text() == "own"
    assert (tmp_path / "own/file").read_text() == "own"
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["file"]
    assert not (tmp_path / "restored").exists()
    assert not (tmp_path / "witness").exists()
    hostile.release()
    assert process.wait(timeout=30) == 0


@pytest.mark.usefixtures("ordering")
def test_c3_an_answer_to_a_registration_changes_nothing_here(
    machine: Machine, api: V1Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = api.answer
    monkeypatch.setattr(
        api, "answer", lambda call, message: (original(call, message)[0], ORDERS | {"machine_uuid": "x"})
    )
    before = {path: path.read_bytes() for path in machine.config_dir.rglob("*") if path.is_file()}
    assert machine.run("turku-update-config").returncode == 0
    assert {path: path.read_bytes() for path in machine.config_dir.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in (machine.var_dir / "config.d").iterdir()) == ["10-machine_uuid.json"]
    assert set(json.loads((machine.var_dir / "config.d/10-machine_uuid.json").read_text())) == {
        "machine_uuid",
        "machine_secret",
    }
