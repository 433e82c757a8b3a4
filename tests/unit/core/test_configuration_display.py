"""``config --show``: each key with its value and the file that it is from, secrets hidden."""

import json
import socket
from pathlib import Path

import pytest
from tests.support.markdown import REPOSITORY

import turku.agent.cli
import turku.storage.cli
from turku.agent.config.model import AgentConfig
from turku.core.configuration import declaration


def agent(directory: Path) -> Path:
    (directory / "config.d").mkdir()
    (directory / "config.d/a.json").write_text(
        json.dumps(
            {
                "api_url": "https://x/v1",
                "api_auth": "very secret words",
                "machine_secret": "s" * 30,
                "rsyncd_command": ["nice", "rsync"],
                "var_dir": str(directory / "var"),
            },
            indent=1,
        )
    )
    return directory


def test_every_key_is_shown_with_value_and_origin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert turku.agent.cli.main(["config", "--show", "--json", "--config-dir", str(agent(tmp_path))]) == 0
    rows = {row["key"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == [key.name for key in declaration.all_keys(AgentConfig)]
    assert rows["rsyncd_command"]["value"] == ["nice", "rsync"]
    assert rows["rsyncd_command"]["from"] == f"{tmp_path}/config.d/a.json, line 5"
    assert (rows["ssh_command"]["value"], rows["ssh_command"]["from"]) == (["ssh"], "default")
    assert rows["lock_dir"]["value"] == f"{tmp_path}/var/lock"


def test_secrets_are_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert turku.agent.cli.main(["config", "--show", "--config-dir", str(agent(tmp_path))]) == 0
    out = capsys.readouterr().out
    assert 'api_auth\t"***"\t' in out
    assert 'machine_secret\t"***"\t' in out
    assert "very secret" not in out
    assert "sss" not in out


def test_a_storage_without_an_identity_shows_that_and_gets_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.d").mkdir()
    keys = {"api_url": "https://x/v1", "var_dir": str(tmp_path / "var"), "authorized_keys_file": "/k"}
    content = json.dumps({**keys, "volumes": {"data": {"path": "/srv"}}})
    (tmp_path / "config.d/base.json").write_text(content)
    assert turku.storage.cli.main(["config", "--show", "--json", "-c", str(tmp_path)]) == 0
    rows = {row["key"]: (row["value"], row["from"]) for row in json.loads(capsys.readouterr().out)}
    assert (rows["name"], rows["secret"]) == ((socket.getfqdn(), "default"), (None, "default"))
    assert not (tmp_path / "var").exists()


def test_a_storage_shows_its_sections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.d").mkdir()
    text = (REPOSITORY / "examples/storage/full/config.d/history.json").read_text()
    (tmp_path / "config.d/history.json").write_text(text)
    base = {"api_url": "https://x/v1", "name": "one", "secret": "s" * 30, "volumes": {"data": {"path": "/srv"}}}
    (tmp_path / "config.d/base.json").write_text(json.dumps({**base, "authorized_keys_file": "/k"}))
    assert turku.storage.cli.main(["config", "--show", "--json", "-c", str(tmp_path)]) == 0
    rows = {row["key"]: row["value"] for row in json.loads(capsys.readouterr().out)}
    assert rows["volumes"][0]["path"] == "/srv"
    assert rows["anomaly"]["sources"]["logs"]["minimum_files"] == 50, "as for all sources"
    assert rows["secret"] == "***"
    assert rows["timezone"] == "UTC"


def test_a_terminal_gets_a_line_for_each_key_of_a_section_and_the_file_below(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.d").mkdir()
    base = {"api_url": "https://x/v1", "name": "one", "volumes": {"data": {"path": "/srv"}}}
    (tmp_path / "config.d/base.json").write_text(json.dumps({**base, "authorized_keys_file": "/k"}, indent=1))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert turku.storage.cli.main(["config", "--show", "-c", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f'\nname  "one"\n    from {tmp_path}/config.d/base.json, line 3\n' in out
    assert '\nvolumes.data.path  "/srv"\nvolumes.data.accept_new  true\n' in out
    assert "\nanomaly.deleted_share  0.5\nanomaly.rewritten_share  0.5\n" in out
