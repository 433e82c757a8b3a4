"""The log of the daemon that receives a restore is read to its end, whatever happens to what it says."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from turku.agent.receiving_daemon import ReceivingDaemon


@pytest.mark.parametrize("fault", [ValueError, KeyError, OSError])
def test_a_log_that_is_not_understood_is_read_all_the_same(tmp_path: Path, fault: type[Exception]) -> None:
    def fail(*_received: object) -> None:
        raise fault("a fault of our own")

    agent: Any = SimpleNamespace(rsyncd_local_address="127.0.0.1")
    daemon = ReceivingDaemon(agent, tmp_path, 1, fail)
    line = b"2026/01/01 [1] " + daemon._token + b" " + b"00" * 16 + b" 5 name\n"
    log = io.BufferedReader(io.BytesIO(line * 100_000))  # type: ignore[arg-type]
    daemon._read(log)
    assert log.read() == b""
