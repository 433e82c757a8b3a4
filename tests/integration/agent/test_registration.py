"""turku-update-config: the identity that it makes, and what it tells a coordinator of the existing system."""

import json
import re
import stat
import subprocess
import uuid
from pathlib import Path

import pytest
from tests.integration.agent.conftest import PROGRAMS, Machine
from tests.support.v1_server import V1Api

from turku.agent.identity.key_pair import is_damaged_key


def identity_file(machine: Machine) -> Path:
    return machine.var_dir / "config.d/10-machine_uuid.json"


def test_a_new_machine_registers_with_all_it_has(machine: Machine, api: V1Api) -> None:
    machine.configure(environment_name="production", service_name="sql", unit_name="sql/0", published=False)
    options = {"frequency": "daily", "retention": "last 9 days", "filter": ["- *.tmp"], "x-unknown": {"a": [1, None]}}
    machine.source("etc", "/etc", **options)
    update = machine.run("turku-update-config")
    assert update.returncode == 0, update.stderr
    (message,) = api.of_call("update_config")
    made = json.loads(identity_file(machine).read_text())
    host = message.pop("host")
    assert host["versions"].keys() == {"turku", "python", "os", "rsync", "ssh"}
    assert host["system"]
    assert message == {
        "auth": "REGISTER-MACHINES-HERE",
        "takes_part": True,
        "machine": {
            "uuid": made["machine_uuid"],
            "secret": made["machine_secret"],
            "environment_name": "production",
            "service_name": "sql",
            "unit_name": "sql/0",
            "published": False,
            "ssh_public_key": (machine.var_dir / "ssh_key.pub").read_text().strip(),
            "sources": {"etc": {"path": "/etc", **options}},
        },
    }
    assert uuid.UUID(made["machine_uuid"]).version == 4
    assert re.fullmatch("[A-Za-z0-9]{30}", made["machine_secret"])
    assert message["machine"]["ssh_public_key"].split()[::2] == ["ssh-ed25519", "turku"]
    for path in (identity_file(machine), machine.var_dir / "ssh_key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(machine.var_dir.stat().st_mode) == 0o700
    assert made["machine_secret"] not in update.stdout + update.stderr


def test_the_identity_is_made_once(machine: Machine, api: V1Api) -> None:
    machine.source("etc", "/etc")
    machine.run("turku-update-config")
    before = {path: path.read_bytes() for path in machine.var_dir.rglob("*") if path.is_file()}
    machine.configure(api_auth=None)
    assert machine.run("turku-update-config").returncode == 0
    assert {path: path.read_bytes() for path in machine.var_dir.rglob("*") if path.is_file()} == before
    first, second = api.of_call("update_config")
    assert "auth" not in second
    assert first["machine"] == second["machine"]


@pytest.mark.parametrize("place", ["files", "command line"])
def test_name_and_secret_register_too(machine: Machine, api: V1Api, place: str) -> None:
    api.registration_secrets[:] = [{"name": "web", "secret": "SOMETHING-LONG"}]
    if place == "files":
        machine.configure(api_auth=None, api_auth_name="web", api_auth_secret="SOMETHING-LONG")
        arguments: list[str] = []
    else:
        machine.configure(api_auth="of another coordinator")
        arguments = ["--api-auth-name", "web", "--api-auth-secret", "SOMETHING-LONG"]
    assert machine.run("turku-update-config", *arguments).returncode == 0
    assert api.of_call("update_config")[0]["auth"] == {"name": "web", "secret": "SOMETHING-LONG"}


def test_a_refusal_is_one_clear_error(machine: Machine) -> None:
    machine.configure(api_auth="wrong")
    update = machine.run("turku-update-config")
    assert update.returncode == 77
    assert "error [api-refused]:" in update.stderr
    assert "refused with 403" in update.stderr
    assert "bad auth" in update.stderr
    assert "Traceback" not in update.stderr


@pytest.mark.parametrize(("kind", "prefix"), [("ecdsa", "ecdsa-sha2-"), ("rsa", "ssh-rsa")])
def test_the_type_of_the_key_is_the_administrators_choice(machine: Machine, api: V1Api, kind: str, prefix: str) -> None:
    machine.configure(ssh_key_type=kind)
    assert machine.run("turku-update-config").returncode == 0
    assert api.of_call("update_config")[0]["machine"]["ssh_public_key"].startswith(prefix)


def test_an_identity_of_the_existing_agent_is_used_as_it_is(machine: Machine, api: V1Api) -> None:
    (machine.var_dir / "config.d").mkdir(parents=True)
    identity = {"machine_uuid": str(uuid.uuid4()), "machine_secret": "a" * 30}
    identity_file(machine).write_text(json.dumps(identity))
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-C", "turku", "-f", machine.var_dir / "ssh_key"],
        check=True,
    )
    before = {path: path.read_bytes() for path in machine.var_dir.rglob("*") if path.is_file()}
    assert machine.run("turku-update-config").returncode == 0
    assert before.items() <= {path: path.read_bytes() for path in machine.var_dir.rglob("*") if path.is_file()}.items()
    sent = api.of_call("update_config")[0]["machine"]
    assert (sent["uuid"], sent["secret"]) == (identity["machine_uuid"], identity["machine_secret"])
    assert sent["ssh_public_key"].startswith("ssh-rsa ")


def test_a_lost_public_key_is_derived_from_the_private_one(machine: Machine, api: V1Api) -> None:
    machine.run("turku-update-config")
    (machine.var_dir / "ssh_key.pub").unlink()
    machine.run("turku-update-config")
    first, second = (message["machine"]["ssh_public_key"] for message in api.of_call("update_config"))
    assert first == second


def test_a_public_key_without_its_private_one_is_no_key(machine: Machine, api: V1Api) -> None:
    # What a crash between the two writes leaves.
    machine.run("turku-update-config")
    (machine.var_dir / "ssh_key").unlink()
    machine.run("turku-update-config")
    first, second = (message["machine"]["ssh_public_key"] for message in api.of_call("update_config"))
    assert first != second
    derived = subprocess.run(
        ["ssh-keygen", "-y", "-f", machine.var_dir / "ssh_key"], capture_output=True, text=True, check=True
    )
    assert derived.stdout.split()[:2] == second.split()[:2]


def test_half_an_identity_is_completed(machine: Machine, api: V1Api) -> None:
    chosen = str(uuid.uuid4())
    machine.configure(machine_uuid=chosen)
    assert machine.run("turku-update-config").returncode == 0
    assert api.of_call("update_config")[0]["machine"]["uuid"] == chosen


def test_a_ping_before_registration_says_what_to_do(machine: Machine) -> None:
    ping = machine.ping()
    assert ping.returncode == 78
    assert "this machine is not registered" in ping.stderr
    assert "run turku-update-config" in ping.stderr


def test_check_shows_the_sources_and_changes_nothing(machine: Machine) -> None:
    machine.source("etc", "/etc", comment="all of it")
    machine.source("gone", "/no/such/directory")
    check = subprocess.run(
        [PROGRAMS / "turku-agent", "check", "--offline", "--config-dir", machine.config_dir],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert check.returncode == 0
    assert "    etc: /etc\n        comment: all of it\n" in check.stdout
    assert "    gone: /no/such/directory\n        note: no such directory now\n" in check.stdout
    assert "none yet: turku-update-config registers this machine" in check.stdout
    assert not machine.var_dir.exists()


def test_all_faults_are_reported_at_once_with_an_exit_code_of_their_own(machine: Machine) -> None:
    machine.configure(api_url="ftp://x", published="yes", api_ulr="typo")
    ping = machine.ping()
    assert ping.returncode == 78
    assert "has 2 faults" in ping.stderr
    assert "config.json: api_url: " in ping.stderr
    assert "config.json: published: " in ping.stderr
    assert "config.json: api_ulr: unknown key, ignored; did you mean 'api_url'?" in ping.stderr


def test_an_emptied_file_of_sources_ends_no_backups(machine: Machine, api: V1Api) -> None:
    machine.source("etc", "/etc")
    assert machine.run("turku-update-config").returncode == 0
    [file] = (machine.config_dir / "sources.d").iterdir()
    file.write_text("")
    update = machine.run("turku-update-config")
    assert update.returncode == 78
    assert f"{file}: is empty" in update.stderr
    assert len(api.of_call("update_config")) == 1


def test_a_lost_file_of_sources_is_reported_loudly(machine: Machine, api: V1Api) -> None:
    machine.source("etc", "/etc")
    machine.source("home", "/home")
    assert "no longer declared" not in machine.run("turku-update-config").stderr
    for file in (machine.config_dir / "sources.d").iterdir():
        if "etc" in file.read_text():
            file.unlink()
    check = machine.run("turku-agent", "check", "--offline")
    assert check.returncode == 1
    assert "PROBLEM: source etc was declared at the last turku-update-config" in check.stdout
    update = machine.run("turku-update-config")
    assert update.returncode == 0
    [line] = [line for line in update.stderr.splitlines() if "no longer declared" in line]
    assert "ERROR" in line
    assert "sources.d, so that nothing new of it is backed up: etc." in line
    # A coordinator of the existing system does not name it again.
    assert "no longer declared" not in machine.run("turku-update-config").stderr
    assert machine.run("turku-agent", "check", "--offline").returncode == 0


@pytest.mark.parametrize("record", ["", "[", "{}", "[1]", "\x00", "[" * 100_000])
def test_a_damaged_record_of_sources_is_none(machine: Machine, api: V1Api, record: str) -> None:
    machine.source("etc", "/etc")
    machine.run("turku-update-config")
    (machine.var_dir / "declared_sources.json").write_text(record)
    update = machine.run("turku-update-config")
    assert (update.returncode, "no longer declared" in update.stderr) == (0, False)
    assert json.loads((machine.var_dir / "declared_sources.json").read_text()) == ["etc"]


DAMAGES = {
    "emptied": b"",
    "NUL bytes": b"\0" * 130,
    "cut off": b'{\n    "machine_secr',
    "another's": b'{"unrelated": 1}',
}


@pytest.mark.parametrize("content", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_identity_is_repaired_from_its_copy(machine: Machine, api: V1Api, content: bytes) -> None:
    assert machine.run("turku-update-config").returncode == 0
    before = identity_file(machine).read_bytes()
    identity_file(machine).write_bytes(content)
    ping = machine.ping()
    assert ping.returncode == 0
    assert f"{identity_file(machine)} is damaged" in ping.stderr
    update = machine.run("turku-update-config")
    assert update.returncode == 0
    assert "repaired " in update.stderr
    assert identity_file(machine).read_bytes() == before
    assert stat.S_IMODE(identity_file(machine).stat().st_mode) == 0o600
    assert len(api.machines) == 1
    assert "is damaged" not in machine.ping().stderr


@pytest.mark.parametrize("content", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_identity_without_a_copy_is_named_and_no_new_machine(
    machine: Machine, api: V1Api, content: bytes
) -> None:
    assert machine.run("turku-update-config").returncode == 0
    [copy] = machine.var_dir.glob("*.copy")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    copy.write_bytes(content)
    identity_file(machine).write_bytes(content)
    for program in ("turku-update-config", "turku-agent-ping"):
        ended = machine.run(program)
        assert ended.returncode == 78
        assert f"{identity_file(machine)}: is damaged" in ended.stderr
        assert "re-enrol" in ended.stderr
    assert len(api.machines) == 1
    # Whoever removes it wants a new identity.
    identity_file(machine).unlink()
    assert machine.run("turku-update-config").returncode == 0
    assert len(api.machines) == 2


def test_the_identity_of_an_older_agent_is_kept_twice_from_then_on(machine: Machine) -> None:
    assert machine.run("turku-update-config").returncode == 0
    [copy] = machine.var_dir.glob("*.copy")
    before = copy.read_bytes()
    copy.unlink()
    assert machine.run("turku-update-config").returncode == 0
    assert copy.read_bytes() == before


@pytest.mark.parametrize("damage", ["emptied", "NUL bytes", "cut off", "a byte"])
def test_a_damaged_ssh_key_is_named_and_replaced(machine: Machine, api: V1Api, damage: str) -> None:
    machine.source("files", machine.config_dir)
    machine.register()
    key = machine.var_dir / "ssh_key"
    content = key.read_bytes()
    middle = len(content) // 2
    key.write_bytes(
        {
            "emptied": b"",
            "NUL bytes": b"\0" * len(content),
            "cut off": content[:middle],
            "a byte": content[:middle] + b"!" + content[middle + 1 :],
        }[damage]
    )
    ping = machine.ping()
    assert ping.returncode != 0
    assert f"{key} is damaged" in ping.stderr
    assert "run turku-update-config" in ping.stderr
    assert machine.run("turku-update-config").returncode == 0
    first, second = (message["machine"]["ssh_public_key"] for message in api.of_call("update_config"))
    assert first != second
    derived = subprocess.run(["ssh-keygen", "-y", "-f", key], capture_output=True, text=True, check=True)
    assert derived.stdout.split()[:2] == second.split()[:2]
    assert (machine.var_dir / "ssh_key.damaged").exists()
    machine.register()
    assert machine.ping().returncode == 0


@pytest.mark.parametrize("content", [b"", b"\0" * 90, b"ssh-ed25519 AAAA", b"\xff\xfe"])
def test_a_damaged_public_key_is_derived_from_the_private_one(machine: Machine, api: V1Api, content: bytes) -> None:
    machine.run("turku-update-config")
    (machine.var_dir / "ssh_key.pub").write_bytes(content)
    assert machine.run("turku-update-config").returncode == 0
    first, second = (message["machine"]["ssh_public_key"] for message in api.of_call("update_config"))
    assert first == second


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_whole_ssh_key_of_any_kind_is_taken_for_one(tmp_path: Path, kind: str) -> None:
    for number, options in enumerate(([], ["-m", "PEM"] if kind != "ed25519" else [], ["-N", "a passphrase"])):
        path = tmp_path / f"key{number}"
        words = [*options] if "-N" in options else ["-N", "", *options]
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-f", path, *words], check=True)
        assert not is_damaged_key(path)


def test_check_names_a_file_with_a_secret_that_others_may_read(machine: Machine) -> None:
    machine.source("etc", "/etc")
    assert machine.run("turku-update-config").returncode == 0
    file = machine.config_dir / "config.d" / "by-hand.json"
    file.write_text('{"api_auth": "x"}')
    file.chmod(0o644)
    check = machine.run("turku-agent", "check")
    assert check.returncode == 1
    assert f"PROBLEM: {file}: it holds a secret, and its mode 0644 lets others in: chmod 0600 {file}" in check.stdout
    file.chmod(0o600)
    assert machine.run("turku-agent", "check", "--offline").returncode == 0
