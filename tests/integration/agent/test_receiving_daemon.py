"""The daemon of a restore is read to the end of what it says, however late that is."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from turku.agent.config import loading as configuration
from turku.agent.config.model import AgentConfig
from turku.agent.restore.job import RestoreJob
from turku.agent.rsyncd import receiving_daemon
from turku.agent.rsyncd.config_text import Module
from turku.core.filesystem import extended_attributes
from turku.protocol.messages import StorageAddress

TALKER = r"""
import os, re, signal, socket, sys
text = open(next(word for word in sys.argv if word.startswith("--config=")).removeprefix("--config=")).read()
port = int(re.search(r"port = (\d+)", text)[1])
token = re.search(r"log format = (\w+)", text)[1]

def tell(number):
    print(f"2026/11/29 10:00:00 [7] {token} {'0f' * 16} 1 file-{number} {token}", flush=True)

def end(*_):
    for number in range(1, 100):
        tell(number)
    os._exit(19)

tell(0)

signal.signal(signal.SIGUSR1, end)
listening = socket.create_server(("127.0.0.2", port))
while True:
    connection, _ = listening.accept()
    connection.sendall(b"@RSYNCD: 31.0\n")
    connection.close()
"""


def configured(tmp_path: Path, **keys: Any) -> AgentConfig:
    (tmp_path / "etc" / "config.d").mkdir(parents=True)
    content: dict[str, Any] = {
        "api_url": "https://turku.example.com/v1",
        "var_dir": str(tmp_path / "var"),
        "rsyncd_local_address": "127.0.0.2",
        **keys,
    }
    (tmp_path / "etc" / "config.d" / "config.json").write_text(json.dumps(content))
    return configuration.load(tmp_path / "etc")


def test_the_last_lines_count_though_the_daemon_is_gone_when_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "talker.py").write_text(TALKER)
    agent = configured(tmp_path, rsyncd_command=[sys.executable, str(tmp_path / "talker.py")])
    received: list[bytes] = []

    def take(path: bytes, _checksum: bytes, _size_bytes: int) -> None:
        if not received:
            time.sleep(1)
        received.append(path)

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with receiving_daemon.serve(agent, scratch, take):
        pass
    assert received == [b"file-%d" % number for number in range(100)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sets labels")
@pytest.mark.parametrize("is_labelled_host", [True, False])
@pytest.mark.parametrize("has_labels", [True, False])
def test_labels_are_left_alone_where_selinux_gave_them_and_the_snapshot_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_labelled_host: bool, has_labels: bool
) -> None:
    monkeypatch.setattr(extended_attributes, "are_labelled_here", lambda: is_labelled_host)
    daemon = receiving_daemon.ReceivingDaemon(configured(tmp_path), tmp_path, 50_000, lambda *_: None)
    module = Module("turku-restore", str(tmp_path), writable=True)
    daemon.offer(module, may_delete=False, has_labels=has_labels, file_limit_bytes=None)
    text = (tmp_path / "rsyncd.conf").read_text()
    assert ("-x_security.selinux" in text) == (is_labelled_host and not has_labels)


@pytest.mark.parametrize("user", [0, 1000])
def test_a_user_who_may_not_write_into_every_file_leaves_holes_to_rsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int
) -> None:
    agent = configured(tmp_path)
    monkeypatch.setattr(RestoreJob, "temporary", lambda _order, _agent: f".turku-restore-{'0' * 32}")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    storage = StorageAddress("primary", "127.0.0.1", [], 22, "root")
    assert RestoreJob("etc", storage, None).message(agent).digs_holes == (user == 0)
