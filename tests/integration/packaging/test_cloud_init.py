"""The cloud-init example is what cloud-init reads, and what the agent takes."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.markdown import REPOSITORY

from turku.agent.commands import host_setup
from turku.agent.config import loading
from turku.core.cli.arguments import Parser

EXAMPLE = REPOSITORY / "packaging" / "cloud-init" / "turku-agent.yaml"


@pytest.fixture(scope="module")
def user_data() -> dict[str, Any]:
    text = EXAMPLE.read_text()
    assert text.startswith("#cloud-config\n"), "cloud-init reads nothing else as this format"
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_it_has_no_other_modules_than_these(user_data: dict[str, Any]) -> None:
    assert set(user_data) == {"write_files", "package_update", "packages", "runcmd"}
    for file in user_data["write_files"]:
        assert set(file) == {"path", "owner", "permissions", "content"}
        # A number would be read as decimal.
        assert isinstance(file["permissions"], str)
    assert all(isinstance(word, str) for command in user_data["runcmd"] for word in command)


def test_the_agent_takes_what_it_writes(user_data: dict[str, Any], tmp_path: Path) -> None:
    for file in user_data["write_files"]:
        path = tmp_path / Path(file["path"]).relative_to("/etc/turku-agent")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file["content"])
    # Setup adds the address of the token.
    added = {"api_url": "https://turku.example.com/v1", "var_dir": str(tmp_path / "var")}
    (tmp_path / "config.d" / "60-setup.json").write_text(json.dumps(added))
    agent = loading.load(tmp_path)
    assert set(agent.sources) == {"etc", "home"}
    assert list(map(str, agent.backup.accept_profiles)) == ["/etc", "/srv"]


def test_its_setup_command_is_one_of_the_agent_s(user_data: dict[str, Any]) -> None:
    [arguments] = [command[2:] for command in user_data["runcmd"] if command[:2] == ["turku-agent", "setup"]]
    [command] = [each for each in host_setup.COMMANDS if each.name == "setup"]
    parser = Parser(prog="turku-agent setup", **command.help_settings)
    command.fill(parser, ())
    assert parser.parse_args(arguments).yes


@pytest.mark.skipif(shutil.which("cloud-init") is None, reason="cloud-init is not installed here")
def test_cloud_init_s_own_schema_takes_it() -> None:
    subprocess.run(["cloud-init", "schema", "--config-file", EXAMPLE], check=True, timeout=60)
