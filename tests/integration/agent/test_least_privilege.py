"""The agent as a user of its own: reads everything by one capability, writes nothing but its state, trusts no less."""

import json
import os
import pwd
import re
import subprocess
from pathlib import Path

import pytest
from tests.integration.agent.conftest import Machine, end, wait_for
from tests.support.trees import differences
from tests.support.v1_server import V1Api

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="starts the agent as another user")]
AGENT_USER = pwd.getpwnam("nobody").pw_uid
"""In the place of turku-agent: ssh wants an account."""
READ = "+dac_read_search"
READ_AND_LOCK_IN = "+dac_read_search,+sys_chroot"


def as_agent_user(capabilities: str) -> list[str]:
    """Return the words that run a program as the systemd unit does: one user, these capabilities, no way to others."""
    given = [f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}"] if capabilities else []
    bounds = f"-all,{capabilities}" if capabilities else "-all"
    return [
        *("setpriv", f"--reuid={AGENT_USER}", f"--regid={AGENT_USER}", "--clear-groups", "--no-new-privs"),
        *(*given, f"--bounding-set={bounds}"),
    ]


@pytest.fixture
def tree(machine: Machine, tmp_path: Path) -> Path:
    """A tree of files that only root, or nobody but root, can read."""
    directory = tmp_path / "src"
    (directory / "closed/below").mkdir(parents=True)
    for name, mode, owner in (
        ("shadow", 0o600, 0),
        ("closed/key", 0o400, 0),
        ("closed/below/nothing", 0o000, 33),
        ("open", 0o644, 1000),
    ):
        (directory / name).write_text(name * 100)
        os.chown(directory / name, owner, owner)
        (directory / name).chmod(mode)
    (directory / "link").symlink_to("/etc/shadow")
    (directory / "closed/below").chmod(0o000)
    (directory / "closed").chmod(0o700)
    machine.source("etc", directory)
    return directory


@pytest.fixture
def machine(machine: Machine) -> Machine:
    """A machine registered by the agent's user, who owns its state. The configuration is root's alone."""
    machine.var_dir.mkdir(mode=0o700)
    os.chown(machine.var_dir, AGENT_USER, AGENT_USER)
    for path in (machine.config_dir, *machine.config_dir.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return machine


@pytest.mark.parametrize("capabilities", [READ, READ_AND_LOCK_IN])
def test_a_tree_that_is_root_s_alone_is_backed_up_whole(machine: Machine, tree: Path, capabilities: str) -> None:
    machine.prefix = as_agent_user(capabilities)
    machine.register()
    ping = machine.ping()
    assert ping.returncode == 0, ping.stderr
    assert differences(tree, machine.backed_up("etc")) == []
    assert owners(machine.var_dir) == {AGENT_USER}


def test_without_the_capability_it_is_not(machine: Machine, api: V1Api, tree: Path) -> None:
    # Without this the test above would prove nothing.
    machine.prefix = as_agent_user(READ)
    machine.register()
    # The directories of these tests are closed themselves: an rsyncd that may enter them, and no more.
    wrapper = machine.directory / "rsync-without"
    wrapper.write_text('#!/bin/sh\nexec setpriv --ambient-caps=-all --inh-caps=-all rsync "$@"\n')
    wrapper.chmod(0o755)
    machine.configure(rsyncd_command=[str(wrapper)])
    assert machine.ping().returncode == 2 or not api.reports["etc"]["success"]


def test_nothing_but_its_state_can_be_written(machine: Machine, tree: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    machine.prefix = as_agent_user(READ_AND_LOCK_IN)
    machine.register()
    gonogo = [
        *("sh", "-c", 'touch "$1"; echo x >> "$2"; chmod 777 "$2"; chown 0 "$3"; kill -0 1; exit 0', "sh"),
        *(str(victim), str(tree / "open"), str(machine.var_dir)),
    ]
    machine.configure(gonogo_program=gonogo)
    ping = machine.ping()
    assert ping.returncode == 0
    assert ping.stderr.count("ermission denied") + ping.stderr.count("not permitted") >= 4
    assert not victim.exists()
    assert (tree / "open").read_text() == "open" * 100


def owners(directory: Path) -> set[int]:
    return {path.lstat().st_uid for path in (directory, *directory.rglob("*"))}


def test_files_that_root_makes_by_hand_belong_to_the_agent_s_user(machine: Machine, api: V1Api, tree: Path) -> None:
    machine.register()  # as root, as the tutorial has it
    restore = machine.start("turku-agent-ping", "--restore", stdin=subprocess.PIPE)
    try:
        wait_for(lambda: list(machine.var_dir.glob("run/restore-*/attempt-1/known_hosts")))
        assert restore.stdin is not None
        restore.stdin.close()
        assert restore.wait(timeout=60) == 0
    finally:
        end(restore)
    assert machine.ping().returncode == 0
    left = {path for path in machine.var_dir.rglob("*") if path.lstat().st_uid != AGENT_USER}
    # Root's locks may be root's: whoever may read them can hold them.
    assert {path.suffix for path in left} <= {".lock"}
    machine.prefix = as_agent_user(READ)
    assert machine.run("turku-update-config").returncode == 0
    api.reports.clear()
    ping = machine.ping()
    assert ping.returncode == 0, ping.stderr
    assert api.reports["etc"]["success"]


def test_root_heeds_no_program_that_the_agent_s_user_could_have_named(machine: Machine, tree: Path) -> None:
    machine.register()
    witness = machine.directory / "witness"
    planted = {
        **{key: ["touch", str(witness)] for key in ("gonogo_program", "rsyncd_command", "ssh_command")},
        "restore_path": str(witness),
        "lock_dir": str(witness),
        "api_url": "http://127.0.0.1:1/v1",
    }
    (machine.var_dir / "config.d/99-planted.json").write_text(json.dumps(planted))
    assert machine.ping().returncode == 0
    assert machine.run("turku-agent", "check", "--offline").returncode == 0
    assert not witness.exists()


def test_a_link_in_the_place_of_a_state_directory_is_not_followed(machine: Machine, tree: Path, tmp_path: Path) -> None:
    machine.register()
    victim = tmp_path / "victim"
    (victim / "ping-of-somebody").mkdir(parents=True)
    for path in (machine.var_dir / "run").iterdir():
        path.rmdir()
    (machine.var_dir / "run").rmdir()
    (machine.var_dir / "run").symlink_to(victim)
    ping = machine.ping()
    assert ping.returncode == 73
    assert "is a symbolic link" in ping.stderr
    assert (victim / "ping-of-somebody").exists()


def test_a_restore_says_how_it_gets_to_write(machine: Machine, tree: Path, tmp_path: Path) -> None:
    machine.prefix = as_agent_user(READ)
    machine.register()
    restore = machine.ping("--restore")
    assert restore.returncode == 73
    assert re.search(r"cannot write .*/restored", restore.stderr)
    assert "as root: sudo turku-agent-ping --restore" in restore.stderr
    assert not (tmp_path / "restored").exists()
