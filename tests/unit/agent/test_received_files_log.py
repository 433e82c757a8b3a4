"""The received files in the log of a restore's rsync daemon, whichever release writes it."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from turku.agent.config import loading as configuration
from turku.agent.rsyncd.receiving_daemon import ReceivingDaemon

STAMP = b"2026/11/29 18:33:25 [30454] "
CHECKSUM = "0f" * 16


@pytest.fixture
def received() -> list[tuple[bytes, bytes, int]]:
    return []


@pytest.fixture
def daemon(tmp_path: Path, received: list[Any], write: Callable[[], Path]) -> ReceivingDaemon:
    return ReceivingDaemon(configuration.load(write()), tmp_path, 18730, lambda *report: received.append(report))


def record(daemon: ReceivingDaemon, name: bytes, size: int = 1) -> bytes:
    token = daemon._token
    return STAMP + token + b" %s %d " % (CHECKSUM.encode(), size) + name + b" " + token + b"\n"


def read(daemon: ReceivingDaemon, *lines: bytes) -> None:
    daemon._read(io.BytesIO(b"".join(lines)))


def test_a_plain_name_is_reported_with_its_checksum(daemon: ReceivingDaemon, received: list[Any]) -> None:
    read(daemon, STAMP + b"connect\n", record(daemon, b"a b\\n#012 \xff", 7), STAMP + b"sent 1 bytes\n")
    assert received == [(b"a b\\n#012 \xff", bytes.fromhex(CHECKSUM), 7)]


@pytest.mark.parametrize("name", [b"a\\#012b", b"\\#134#012", b"\\#999", b"x\\\\#377"])
def test_a_name_that_may_be_escaped_is_reported_without_a_checksum(
    daemon: ReceivingDaemon, received: list[Any], name: bytes
) -> None:
    read(daemon, record(daemon, name, 5), record(daemon, b"next", 6))
    assert [(checksum, size) for _path, checksum, size in received] == [(b"", 5), (bytes.fromhex(CHECKSUM), 6)]


def test_a_name_that_is_broken_in_two_is_not_taken_for_another_one(
    daemon: ReceivingDaemon, received: list[Any]
) -> None:
    read(daemon, record(daemon, b"a\nb", 5), record(daemon, b"a", 6))
    assert [(checksum, size) for _path, checksum, size in received] == [(b"", 5), (bytes.fromhex(CHECKSUM), 6)]
    assert received[1][0] == b"a"


def test_a_name_that_is_cut_off_is_not_taken_for_another_one(daemon: ReceivingDaemon, received: list[Any]) -> None:
    cut = record(daemon, b"directory/" * 190 + b"name")[:1900]
    read(daemon, cut, record(daemon, b"next", 6))
    assert [checksum for _path, checksum, _size in received] == [b"", bytes.fromhex(CHECKSUM)]
    assert received[1][0] == b"next"


@pytest.mark.parametrize("fault", [ValueError, KeyError, OSError])
def test_a_log_that_is_not_understood_is_read_all_the_same(tmp_path: Path, fault: type[Exception]) -> None:
    def fail(*_received: object) -> None:
        raise fault("a fault of our own")

    agent: Any = SimpleNamespace(rsyncd=SimpleNamespace(rsyncd_local_address="127.0.0.1"))
    daemon = ReceivingDaemon(agent, tmp_path, 1, fail)
    line = b"2026/01/01 [1] " + daemon._token + b" " + b"00" * 16 + b" 5 name\n"
    output = tmp_path / "output"
    output.write_bytes(line * 100_000)
    with output.open("rb") as log:
        daemon._read(os.fdopen(os.dup(log.fileno()), "rb"))
        assert log.read() == b""
