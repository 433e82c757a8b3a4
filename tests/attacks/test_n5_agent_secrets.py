"""N5: nothing that the agent prints or logs has a secret in it, but what an operator asked for: a restore's password."""

import json
import subprocess
from pathlib import Path

from tests.attacks.conftest import StartPing
from tests.integration.agent.conftest import Machine
from tests.integration.agent.test_restore import SAMPLE
from tests.support.hostile_storage import HostileStorage
from tests.support.v1_server import V1Api


def known_secrets(machine: Machine) -> list[str]:
    """The machine's lasting secrets: towards the coordinator, of registration, and its private key."""
    identity = json.loads((machine.var_dir / "config.d/10-machine_uuid.json").read_text())
    key = [line for line in (machine.var_dir / "ssh_key").read_text().splitlines() if "PRIVATE KEY" not in line]
    return [identity["machine_secret"], *machine.api.registration_secrets, *key]


def test_n5_no_program_prints_a_secret_however_much_it_says(machine: Machine, api: V1Api, tmp_path: Path) -> None:
    machine.source("etc", tmp_path)
    first = machine.run("turku-update-config", "--debug")
    machine.register()
    said = [first.stdout + first.stderr]
    for program, *words in (
        ("turku-update-config", "--debug"),
        ("turku-agent-ping", "--debug"),
        ("turku-agent", "check", "--offline", "--debug"),
        ("turku-agent", "storages", "--debug"),
        ("turku-agent", "rotate-keys", "--debug"),  # refused: this coordinator has no such call
        ("turku-agent", "re-enrol", "a code that nobody gave me", "--debug"),
    ):
        run = machine.run(program, *words)
        said.append(run.stdout + run.stderr)
    # What goes wrong is told, too, without them.
    api.machines[machine.uuid]["secret"] = "another"
    for program in ("turku-update-config", "turku-agent-ping"):
        refused = machine.run(program, "--debug")
        assert refused.returncode == 77
        said.append(refused.stdout + refused.stderr)
    machine.configure(api_auth={"not": "text"}, machine_secret=["x" * 30])
    faulty = machine.run("turku-update-config", "--debug")
    assert faulty.returncode == 78
    said.append(faulty.stdout + faulty.stderr)
    for text in said:
        assert not [secret for secret in known_secrets(machine) if secret in text], text
        assert "x" * 30 not in text
        assert "a code that nobody gave me" not in text


def test_n5_one_time_passwords_are_sent_to_the_storage_only(
    machine: Machine, hostile: HostileStorage, open_session: StartPing
) -> None:
    machine.source("etc", "/etc/ssh")
    process = open_session("--debug")
    passwords = [login["password"] for login in hostile.request()["sources"].values()]
    # Somebody who tries one of their own is told of in the log: the attempt, not the password.
    hostile.rsync("rsync://{}/etc/", login={"username": "guess", "password": "a guess of mine"})
    hostile.release()
    stdout, stderr = process.communicate(timeout=30)
    for secret in (*passwords, *known_secrets(machine), "a guess of mine"):
        assert secret not in stdout + stderr


def test_n5_a_restore_shows_its_password_to_the_terminal_and_logs_it_nowhere(
    machine: Machine, hostile: HostileStorage, open_session: StartPing
) -> None:
    machine.source("etc", "/etc/ssh")
    process = open_session("--restore", "--debug", stdin=subprocess.PIPE)
    hostile.request()
    stdout, stderr = process.communicate(timeout=30)
    sample = SAMPLE.search(stdout)
    assert sample is not None
    assert sample["password"] not in stderr
    assert not [secret for secret in known_secrets(machine) if secret in stdout + stderr]
