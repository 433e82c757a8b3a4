"""The agent's own secrets, locks and runtime files are in no backup, and no restore touches them."""

import json
import shutil
from pathlib import Path

import pytest
from tests.support.fleet import Fleet
from tests.system.conftest import MakeMachine

from turku.demo import programs
from turku.demo.private_machine import PrivateMachine

NAMES = {"unit_name": "kept"}


@pytest.fixture
def machine(fleet: Fleet, make_machine: MakeMachine) -> PrivateMachine:
    """A machine whose source has the agent's own directories, beside a file."""
    machine = make_machine({})
    machine.declare({"tree": {"path": str(machine.directory)}})
    (machine.directory / "data").mkdir()
    (machine.directory / "data" / "file").write_text("data\n")
    (machine.config_dir / "config.d" / "names.json").write_text(json.dumps(NAMES))
    (machine.config_dir / "config.d" / "agent.json.bak").write_text("an old secret\n")
    machine.update_config()
    return machine


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def identity(machine: PrivateMachine) -> dict[str, bytes]:
    """Return the files that a restore must leave: the state, but for those that a restore itself writes."""
    state = {
        name: content
        for name, content in contents(machine.var_dir).items()
        if not name.startswith(("restores/", "lock/"))
    }
    return state | {f"config.d/{name}": each for name, each in contents(machine.config_dir / "config.d").items()}


def restore(machine: PrivateMachine, *arguments: str, codes: tuple[int, ...] = (0,)) -> str:
    completed = programs.run(
        *("turku-agent", "restore", "--config-dir", str(machine.config_dir), "tree", *arguments, "--in-place", "--yes"),
        expected_codes=codes,
    )
    return "\n".join((completed.stdout.decode(), *completed.last_lines))


def test_a_backup_has_no_secret_lock_or_runtime_file(fleet: Fleet, machine: PrivateMachine) -> None:
    machine.ping()
    [snapshot] = fleet.snapshots(machine, "tree")
    assert set(contents(snapshot)) == {"data/file", "etc/config.d/names.json", "etc/sources.d/sources.json"}
    # So that a restored system has them.
    assert (snapshot / "state").is_dir()
    secret = json.loads((machine.var_dir / "config.d/10-machine_uuid.json").read_text())["machine_secret"]
    assert not any(secret.encode() in content for content in contents(snapshot).values())


def test_check_says_what_is_not_backed_up(machine: PrivateMachine) -> None:
    checked = programs.run("turku-agent", "check", "--config-dir", machine.config_dir).stdout.decode()
    assert f"note: {machine.var_dir} is not backed up: it is the agent's own state, with its secrets" in checked
    for name in ("agent.json", "agent.json.bak"):
        assert f"{machine.config_dir}/config.d/{name} is not backed up: it is a secret or a lock" in checked
    assert "names.json" not in checked


def test_a_source_that_is_the_agents_state_is_never_offered(fleet: Fleet, make_machine: MakeMachine) -> None:
    machine = make_machine({})
    machine.declare({"state": {"path": str(machine.var_dir)}})
    machine.update_config()
    assert machine.ping(check=False).exit_code == 2
    [run] = fleet.runs(machine, "state")
    assert "is the agent's own state" in run["summary"]


@pytest.fixture
def lost_machine(tmp_path: Path) -> Path:
    """The tree of a machine that was lost. No agent runs there any more that would exclude anything."""
    tree = tmp_path / "lost"
    for name, text in {
        "state/config.d/10-machine_uuid.json": '{"machine_uuid": "old", "machine_secret": "old"}',
        "state/ssh_key": "old key",
        "etc/config.d/agent.json": '{"api_url": "http://127.0.0.1:1/v1"}',
        "etc/config.d/99-old.json": '{"machine_secret": "old"}',
        "etc/sources.d/sources.json": "old",
        "etc/sources.d/lost.json": '{"lost": {"path": "/lost"}}',
        "data/more": "more\n",
    }.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    return tree


def back_up_lost(machine: PrivateMachine, tree: Path) -> None:
    """Back the tree up as the machine's source, which then is the machine's own directory again."""
    here = {"tree": {"path": str(machine.directory)}}
    machine.declare({"tree": {"path": str(tree)}})
    machine.update_config()
    machine.ping()
    machine.declare(here)


@pytest.mark.parametrize("delete", [(), ("--delete",)], ids=["plain", "mirror"])
def test_a_restore_of_everything_leaves_the_identity_and_the_configuration_as_they_are(
    machine: PrivateMachine, lost_machine: Path, delete: tuple[str, ...]
) -> None:
    back_up_lost(machine, lost_machine)
    before, sources = identity(machine), (machine.config_dir / "sources.d" / "sources.json").read_bytes()
    (machine.config_dir / "sources.d" / "new.json").write_text("{}")
    (machine.directory / "data" / "new").touch()
    shown = restore(machine, *delete, codes=(0,))
    assert identity(machine) == before, shown
    assert (machine.directory / "data" / "more").read_text() == "more\n"
    assert (machine.directory / "data" / "new").exists() == (not delete)
    # Sources that are there stay, and those of a lost machine come back.
    assert (machine.config_dir / "sources.d" / "sources.json").read_bytes() == sources
    assert (machine.config_dir / "sources.d" / "new.json").exists()
    assert (machine.config_dir / "sources.d" / "lost.json").exists()


@pytest.mark.parametrize("path", ["state", "state/ssh_key", "etc/config.d", "etc/config.d/99-old.json"])
def test_not_even_a_restore_of_that_path_alone_touches_it(
    machine: PrivateMachine, lost_machine: Path, path: str
) -> None:
    back_up_lost(machine, lost_machine)
    before = identity(machine)
    shown = restore(machine, path, codes=(0, 3, 4))
    assert identity(machine) == before
    assert "belongs to the agent that runs here" in shown


def test_a_snapshot_with_a_file_in_place_of_the_state_removes_nothing(
    machine: PrivateMachine, lost_machine: Path
) -> None:
    shutil.rmtree(lost_machine / "state")
    (lost_machine / "state").symlink_to("/nowhere")
    shutil.rmtree(lost_machine / "etc")
    (lost_machine / "etc").write_text("a file\n")
    back_up_lost(machine, lost_machine)
    before = identity(machine)
    shown = restore(machine, "--delete", codes=(0, 3))
    assert identity(machine) == before
    assert "the agent's own files are in it" in shown
