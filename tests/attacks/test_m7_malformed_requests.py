"""M7: whatever a machine says on the forced command's standard input, the session ends soon, with a sentence.

`bench/fuzz_session.py` sends 10,000 such requests. Here is a part of them, and input without end. The owner of the port
that a machine names is checked in test_m7_ports.py.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bench import fuzz_session
from tests.support.forked_command import Ended
from tests.support.malformed_session_requests import malformed

from turku.errors import MalformedMessage
from turku.protocol.session_framing import SESSION_REQUEST_TIMEOUT_SECONDS
from turku.storage.session import request

SEED = 7
REAL_COMMANDS = 60
FORKS = 100


@pytest.fixture(scope="module")
def config_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fuzz_session.configured(tmp_path_factory.mktemp("storage"))


def test_m7_the_forced_command_refuses_malformed_requests_within_two_seconds(config_dir: Path) -> None:
    tally = fuzz_session.Tally("installed command")
    for number in range(REAL_COMMANDS):
        tally.add(number, fuzz_session.real(config_dir, malformed(SEED, number)), memory_limit_mib=0)
    assert tally.failures == []


def test_m7_malformed_requests_take_bounded_memory(config_dir: Path) -> None:
    limit = fuzz_session.run_forked(config_dir, b"{}\n.\n").largest_mib + fuzz_session.MEMORY_LIMIT_MIB
    tally = fuzz_session.Tally("forked")
    for number in range(REAL_COMMANDS, REAL_COMMANDS + FORKS):
        tally.add(number, fuzz_session.run_forked(config_dir, malformed(SEED, number)), memory_limit_mib=limit)
    assert tally.failures == []


@pytest.mark.parametrize("unit", [b"x", b"\n", b" .\n", b'{"a":', b"\0"], ids=repr)
def test_m7_ten_megabytes_are_refused_before_they_are_read(config_dir: Path, unit: bytes) -> None:
    ended: Ended = fuzz_session.run_forked(config_dir, unit * (10_000_000 // len(unit)))
    assert ended.exit_code == 76
    assert "larger than" in ended.output
    assert ended.seconds < fuzz_session.LIMIT_SECONDS


def test_m7_a_long_value_fills_neither_terminal_nor_log(config_dir: Path) -> None:
    log = config_dir.parent / "log"
    before = log.stat().st_size if log.exists() else 0
    body = json.dumps({"action": "x" * 200_000, "port": 50_000}).encode() + b"\n.\n"
    ended = fuzz_session.run_forked(config_dir, body)
    assert ended.exit_code == 76
    assert len(ended.output) < 1000
    assert log.stat().st_size - before < 1000


@contextmanager
def trickle(pause_seconds: float) -> Iterator[int]:
    """A descriptor on which a byte comes now and then, for ever."""
    reading, writing = os.pipe()
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(pause_seconds):
            os.write(writing, b" ")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield reading
    finally:
        stop.set()
        thread.join()
        os.close(reading)
        os.close(writing)


def test_m7_a_request_that_never_ends_is_ended_by_time_however_often_a_byte_comes() -> None:
    begun = time.monotonic()
    with trickle(0.02) as descriptor, pytest.raises(MalformedMessage, match="did not end within"):
        request.read(descriptor, timeout_seconds=0.3)
    assert time.monotonic() - begun < 20
    assert SESSION_REQUEST_TIMEOUT_SECONDS <= 30
