"""The installed commands `turku-api`, `turku_auth_create`, `turku_health`, `turku_clean_logs`."""

import json
from pathlib import Path

import pytest
import requests
from tests.support.coordinator import PROGRAMS, Coordinator, free_port

from turku.core import command
from turku.core.command import CompletedProgram
from turku.errors import CommandFailed


def run(program: str, *arguments: str, state_dir: Path, **variables: str) -> CompletedProgram:
    environment = {"TURKU_STATE_DIR": str(state_dir), **variables}
    return command.run([PROGRAMS / program, *arguments], timeout_seconds=60, extra_environment=environment, check=False)


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state directory of a coordinator that is set up."""
    path = tmp_path_factory.mktemp("cli") / "state"
    assert run("turku-api", "migrate", state_dir=path).exit_code == 0
    return path


def test_without_arguments_it_lists_the_main_commands(state_dir: Path) -> None:
    completed = run("turku-api", state_dir=state_dir)
    assert completed.exit_code == 0
    for name in ("migrate", "serve", "auth-create", "health", "clean-logs", "hash-key", "createsuperuser"):
        assert name in completed.stdout.decode()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--help"], "usage: turku-api [-h]"),
        (["health", "--help"], "usage: turku-api health [-h]"),
        (["help", "health"], "usage: turku-api health [-h]"),
        (["help", "migrate"], "usage: turku-api migrate [-h]"),
        (["help"], "    createsuperuser\n"),
    ],
)
def test_help_leaves_no_state_behind(tmp_path: Path, words: list[str], shown: str) -> None:
    assert shown in run("turku-api", *words, state_dir=tmp_path).stdout.decode()
    assert list(tmp_path.iterdir()) == []
    assert run("turku-api", *words, state_dir=tmp_path / "new").exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_state_is_private(state_dir: Path) -> None:
    assert state_dir.stat().st_mode & 0o777 == 0o700
    for path in state_dir.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    assert {"db.sqlite3", "secret_key"} <= {path.name for path in state_dir.iterdir()}


@pytest.mark.parametrize(
    "program", [("turku-api", "auth-create"), ("turku-api", "turku_auth_create"), ("turku_auth_create",)]
)
def test_auth_create_prints_a_secret_and_a_ready_configuration(state_dir: Path, program: tuple[str, ...]) -> None:
    name = " ".join(program)
    completed = run(*program, "machine_reg", "--name", name, state_dir=state_dir)
    output = completed.stdout.decode()
    snippet = json.loads(output[output.index("{") :])
    assert snippet["api_auth_name"] == name
    assert len(snippet["api_auth_secret"]) == 30
    raw = run(*program, "storage_reg", "--raw", "--name", name, state_dir=state_dir).stdout.decode()
    assert len(raw.strip()) == 30
    taken = run(*program, "machine_reg", "--name", name, state_dir=state_dir)
    assert taken.exit_code == 64
    assert "exists already" in "\n".join(taken.last_lines)


def test_health_is_a_nagios_check(state_dir: Path) -> None:
    completed = run("turku_health", state_dir=state_dir)
    assert (completed.exit_code, completed.stdout.decode().count("\n")) == (0, 1)
    assert completed.stdout.startswith(b"OK: ")


@pytest.mark.parametrize(
    ("words", "exit_code"), [(["health"], 2), (["restore", "list"], 78), (["serve"], 78), (["showmigrations"], 1)]
)
def test_only_migrate_creates_a_state_directory(tmp_path: Path, words: list[str], exit_code: int) -> None:
    completed = run("turku-api", *words, state_dir=tmp_path / "missing" / "state")
    text = completed.stdout.decode() + "\n".join(completed.last_lines)
    assert "if this coordinator had data, the file is missing: restore its copy" in text
    assert completed.exit_code == exit_code
    assert text.startswith("CRITICAL: the database ") == (words == ["health"])
    assert list(tmp_path.iterdir()) == []


def test_a_database_file_that_is_gone_does_not_become_an_empty_one(tmp_path: Path) -> None:
    assert run("turku-api", "migrate", state_dir=tmp_path).exit_code == 0
    database = tmp_path / "db.sqlite3"
    database.unlink()
    for words in (("health",), ("back-up-now", "x"), ("createsuperuser", "--noinput", "--username=a", "--email=")):
        completed = run("turku-api", *words, state_dir=tmp_path)
        text = completed.stdout.decode() + "\n".join(completed.last_lines)
        assert completed.exit_code == (2 if words == ("health",) else 78)
        assert f"the database {database} cannot be used: the file is missing" in text
    assert not database.exists()


def test_clean_logs_takes_sane_days_only(state_dir: Path) -> None:
    assert run("turku_clean_logs", "--days", "30", state_dir=state_dir).exit_code == 0
    assert run("turku_clean_logs", "--days", "0", state_dir=state_dir).exit_code == 64


def test_serve_refuses_all_mistakes_at_once(state_dir: Path) -> None:
    completed = run(
        *("turku-api", "serve", "--bind", f"127.0.0.1:{free_port()}"),
        state_dir=state_dir,
        TURKU_ALLOWED_HOSTS="*",
        TURKU_TIME_ZONE="Europe/Atlantis",
    )
    assert completed.exit_code == 78
    text = "\n".join(completed.last_lines)
    assert "turku.E004" in text
    assert "turku.E005" in text


def test_serve_refuses_a_database_that_is_not_set_up(tmp_path: Path) -> None:
    completed = run("turku-api", "serve", "--bind", f"127.0.0.1:{free_port()}", state_dir=tmp_path)
    assert completed.exit_code == 78
    assert "turku-api migrate" in "\n".join(completed.last_lines)


def test_serve_refuses_a_database_of_other_hash_keys(tmp_path: Path) -> None:
    with Coordinator(tmp_path / "state") as coordinator:
        coordinator.create_auth("machine_reg")
        coordinator.stop()
        (coordinator.state_dir / "hash_key").write_text("another key that is long enough for a hash key\n")
        with pytest.raises(CommandFailed) as caught:
            coordinator.start()
        assert "this database belongs to" in caught.value.details


def test_check_reports_mistakes_with_their_ids(state_dir: Path) -> None:
    completed = run("turku-api", "check", state_dir=state_dir, TURKU_DEBUG="perhaps")
    assert completed.exit_code == 1
    assert "turku.E001" in "\n".join(completed.last_lines)


def test_a_database_that_does_not_answer_is_reported_in_a_sentence(tmp_path: Path) -> None:
    completed = run(
        *("turku-api", "migrate"), state_dir=tmp_path, TURKU_DATABASE_URL=f"postgresql://u:hunter2@/x?host={tmp_path}"
    )
    text = "\n".join(completed.last_lines)
    assert completed.exit_code == 78
    assert "cannot be used" in text
    assert "Traceback" not in text
    assert "hunter2" not in text


def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    with Coordinator(tmp_path / "state") as coordinator:
        coordinator.create_auth("machine_reg")
        coordinator.stop()
        coordinator.start()
        assert coordinator.call("health", {}).json()["counts"]["auth"] == 1


def test_a_command_is_called_as_people_type_it_and_shows_its_own_options_only(state_dir: Path) -> None:
    text = run("turku-api", "auth-create", "--help", state_dir=state_dir).stdout.decode()
    assert "usage: turku-api auth-create [-h] [--name NAME] [--raw]" in text
    assert "--pythonpath" not in text


@pytest.mark.parametrize("words", [("back-up",), ("help", "back-up"), ("turku_back_up",), ("back-up", "--help")])
def test_an_unknown_command_is_reported_with_those_that_exist(state_dir: Path, words: tuple[str, ...]) -> None:
    completed = run("turku-api", *words, state_dir=state_dir)
    text = "\n".join(completed.last_lines)
    assert completed.exit_code == 64
    assert "invalid choice: 'back-up' (choose from" in text
    assert "back-up-now" in text


def test_commands_refuse_mistakes_in_the_settings(state_dir: Path) -> None:
    completed = run("turku-api", "auth-create", "machine_reg", state_dir=state_dir, TURKU_ALLOWED_HOSTS="*")
    assert completed.exit_code == 78
    assert "turku.E005" in "\n".join(completed.last_lines)


@pytest.mark.parametrize(
    "option", ["--bind=turku:x", "--bind=127.0.0.1:99999", "--bind=8000", "--workers=0", "--threads=many"]
)
def test_serve_refuses_what_it_cannot_serve_with(state_dir: Path, option: str) -> None:
    completed = run("turku-api", "serve", option, state_dir=state_dir)
    assert completed.exit_code == 64
    assert option.partition("=")[0] in "\n".join(completed.last_lines)


def test_a_request_with_a_strange_host_leaves_one_line_and_no_traceback(tmp_path: Path) -> None:
    with Coordinator(tmp_path / "state") as coordinator:
        response = requests.post(
            f"http://127.0.0.1:{coordinator.port}/v1/health", json={}, headers={"Host": "evil.example.com"}, timeout=30
        )
        assert response.status_code == 400
        coordinator.stop()
        log = coordinator.last_lines
    (line,) = [line for line in log if "evil.example.com" in line]
    assert "TURKU_ALLOWED_HOSTS" in line
    assert not any("Traceback" in line for line in log), "\n".join(log)
