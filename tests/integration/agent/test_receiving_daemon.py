"""The daemon of a restore is read to the end of what it says, however late that is."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from turku.agent import configuration, receiving_daemon

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


def test_the_last_lines_count_though_the_daemon_is_gone_when_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "talker.py").write_text(TALKER)
    (tmp_path / "etc" / "config.d").mkdir(parents=True)
    content: dict[str, Any] = {
        "api_url": "https://turku.example.com/v1",
        "var_dir": str(tmp_path / "var"),
        "rsyncd_command": [sys.executable, str(tmp_path / "talker.py")],
        "rsyncd_local_address": "127.0.0.2",
    }
    (tmp_path / "etc" / "config.d" / "config.json").write_text(json.dumps(content))
    received: list[bytes] = []

    def take(path: bytes, _checksum: bytes, _size_bytes: int) -> None:
        if not received:
            time.sleep(1)
        received.append(path)

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with receiving_daemon.serve(configuration.load(tmp_path / "etc"), scratch, take):
        pass
    assert received == [b"file-%d" % number for number in range(100)]
