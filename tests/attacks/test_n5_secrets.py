"""N5: no secret is in what the coordinator logs, answers, keeps or prints, whatever went wrong with the message."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from tests.support.coordinator import Coordinator
from tests.support.http_cast import SOURCES, HttpCast
from tests.support.v1_client import V1Machine, ask

from turku.core.secret import Secret

MARK = "hunter2"


class Listener:
    """Sends messages and keeps everything that was said about them."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self.heard: list[str] = []

    def post(self, call: str, message: Any) -> tuple[int, Any]:
        response = self.send(call, json.dumps(message).encode())
        return response.status_code, response.json()

    def send(self, call: str, body: bytes) -> requests.Response:
        response = requests.post(f"{self.coordinator.url}/{call}", data=body, timeout=30)
        self.heard += [response.text, *self.coordinator.last_lines]
        return response


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    """A coordinator of this module's own, which says all that it can say."""
    with Coordinator(tmp_path_factory.mktemp("quiet") / "state") as running:
        yield running


def marked(number: int) -> str:
    """A secret that is found wherever it goes."""
    return f"{MARK}-{number:022}"


def test_n5_secrets_of_programs_stay_where_they_belong(quiet: Coordinator) -> None:
    listener = Listener(quiet)
    cast = HttpCast.introduce(quiet)
    alice = V1Machine(listener.post, auth=cast.machine_auth, secret=marked(1))
    alice.update_config(SOURCES)
    bob = cast.storage(secret=marked(2))
    bob.post = listener.post
    bob.update_config()
    rotation = {"machine": {"uuid": alice.uuid, "secret": alice.secret}, "new_secret": marked(3)}
    ask(listener.post, "machine_rotate", rotation)
    ask(listener.post, "storage_rotate", {"storage": {"name": bob.name, "secret": bob.secret}, "new_secret": marked(4)})
    wrong = [
        ("agent_ping_checkin", {"machine": {"uuid": alice.uuid, "secret": marked(5)}}),
        ("agent_ping_checkin", {"machine": {"uuid": alice.uuid, "secret": [marked(6)]}}),
        ("agent_ping_checkin", {"machine": {"uuid": alice.uuid, "secret": marked(7) + "\0"}}),
        ("agent_ping_checkin", {"machine": {"uuid": 5, "secret": marked(8)}}),
        ("agent_ping_checkin", {"machine": {"secret": marked(9)}}),
        ("update_config", {"auth": marked(10), "machine": {"uuid": alice.uuid, "secret": marked(11)}}),
        ("update_config", {"auth": {"name": "x", "secret": marked(12)}, "machine": {"uuid": "x", "secret": "y"}}),
        ("update_config", {"auth": {"secret": marked(13)}, "machine": 5}),
        ("update_config", {"auth": cast.machine_auth, "machine": {"uuid": V1Machine(cast.post).uuid, "secret": MARK}}),
        ("storage_update_config", {"auth": marked(14), "storage": {"name": "x", "secret": marked(15)}}),
        ("machine_reenrol", {"code": marked(16), "secret": marked(17), "ssh_public_key": "x"}),
        ("machine_rotate", {"machine": {"uuid": alice.uuid, "secret": marked(3)}, "new_secret": MARK}),
    ]
    for call, message in wrong:
        assert listener.post(call, message)[0] in (400, 403), call
    for body in (b'{"secret": "' + marked(18).encode(), b'{"secret": "' + marked(19).encode() + b'\xff"}'):
        assert listener.send("agent_ping_checkin", body).status_code == 400
    requests.get(f"{quiet.url}/health", timeout=60)
    listener.heard += quiet.last_lines
    assert "refused" in "\n".join(listener.heard), "the log was heard"
    assert MARK not in "\n".join(listener.heard)
    assert MARK not in json.dumps(cast.rows("SELECT * FROM audit_auditentry"))


def test_n5_options_with_a_secrets_name_are_hidden_on_the_audit_log(quiet: Coordinator) -> None:
    cast = HttpCast.introduce(quiet)
    cast.alice.update_config({**SOURCES, "etc": {"path": "/etc", "database": {"password": marked(20)}}})
    (entry,) = cast.audit("source.changed")
    assert "***" in entry["new"]
    assert MARK not in json.dumps(cast.rows("SELECT * FROM audit_auditentry"))


def test_n5_passwords_of_people_are_nowhere(quiet: Coordinator) -> None:
    quiet.create_administrator("root", Secret(marked(21)))
    browser = requests.Session()
    heard = [browser.get(f"{quiet.admin_url}login/", timeout=60).text]
    for name, password in (("root", marked(22)), (marked(23), ""), (marked(24), "x"), ("root", marked(21))):
        form = {"username": name, "password": password, "next": "/admin/"}
        form["csrfmiddlewaretoken"] = str(browser.cookies["csrftoken"])
        heard += [browser.post(f"{quiet.admin_url}login/", form, timeout=60).text.replace(f'value="{name}"', "")]
        heard += quiet.last_lines
    assert any("Log out" in page for page in heard)
    cast = HttpCast.introduce(quiet)
    assert cast.rows("SELECT * FROM audit_auditentry WHERE action = 'login.failed'")
    assert MARK not in "\n".join(heard)
    assert MARK not in json.dumps(cast.rows("SELECT * FROM audit_auditentry"))


def test_n5_the_output_for_support_has_no_keys(quiet: Coordinator) -> None:
    keys = [(quiet.state_dir / name).read_text().strip() for name in ("secret_key", "hash_key")]
    printed = "".join(
        quiet.manage(*arguments, check=False)
        for arguments in (("check",), ("health", "--verbose"), ("hash-key", "list"), ("diffsettings", "--all"))
    )
    assert "TURKU_ENVIRONMENT" in printed
    assert not any(key in printed for key in keys)


def test_n5_error_pages_show_nothing_of_ours(quiet: Coordinator) -> None:
    base = quiet.url.removesuffix("/v1")
    for path in (
        "/nothing",
        "/admin/fleet/machine/999/",
        "/v1/nothing",
        "/static/../secret_key",
        "/static/%2e%2e/hash_key",
    ):
        text = requests.get(f"{base}{path}", timeout=60).text
        for word in ("Traceback", "site-packages", str(quiet.state_dir), "SECRET_KEY"):
            assert word not in text


def test_n5_no_secret_is_in_arguments_or_files_for_others(quiet: Coordinator) -> None:
    assert quiet._child is not None
    arguments = Path(f"/proc/{quiet._child.pid}/cmdline").read_bytes().decode()
    assert "secret" not in arguments.lower()
    for path in quiet.state_dir.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
