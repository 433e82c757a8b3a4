"""A login shell on the storage that prints: machines are backed up and restored all the same, and told of it."""

import os
import pwd
from pathlib import Path

import pytest
from tests.support.fleet import Fleet

from turku.demo import programs

SAYS = "Welcome to the backup host"
pytestmark = pytest.mark.skipif(
    not pwd.getpwuid(os.geteuid()).pw_shell.endswith("bash"), reason="it is bash whose start-up file prints here"
)


@pytest.mark.parametrize("text", [f"echo '{SAYS}'; echo 'second line'", f"printf '{SAYS} '"])
def test_the_output_of_a_login_shell_is_shown_and_explained(fleet: Fleet, tmp_path: Path, text: str) -> None:
    name = "printing" if "echo" in text else "printing-no-line"
    (tmp_path / ".bashrc").write_text(f"{text}\n")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("content")
    storage = fleet.storage(name, sshd_lines=[f"SetEnv HOME={tmp_path}"])
    machine = fleet.machine(f"of-{name}", {"tree": {"path": str(tree)}}, storage=storage)
    said = "\n".join(programs.run("turku-agent-ping", "--config-dir", str(machine.config_dir)).last_lines)
    assert SAYS in said
    assert "comes from the login shell" in said

    target = tmp_path / "restored"
    words = ("restore", "--config-dir", str(machine.config_dir), "tree", "--to", str(target))
    said = "\n".join(programs.run("turku-agent", *words).last_lines)
    assert (target / "file").read_text() == "content"
    assert f"printed before its answer: {SAYS}" in said
    assert "comes from the login shell" in said
