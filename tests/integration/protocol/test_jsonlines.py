"""Answers on a real pipe: one JSON object on each line, and an end where nobody reads."""

import os
from collections.abc import Iterator
from typing import IO

import pytest

from turku.core.cancellation import Cancellation, Cancelled
from turku.protocol.jsonlines import JsonLines
from turku.protocol.messages import Empty


@pytest.fixture
def pipe() -> Iterator[tuple[int, IO[bytes]]]:
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb", buffering=0) as stream:
        yield reader, stream
    os.close(reader)


def test_each_answer_is_a_line_without_control_characters(pipe: tuple[int, IO[bytes]]) -> None:
    reader, stream = pipe
    lines = JsonLines(stream)
    lines.send(Empty())
    lines.send_many([{"path": "a\u009bb"}, {"path": "\u00e9"}])
    assert os.read(reader, 4096).decode().splitlines() == ["{}", '{"path":"a\\u009bb"}', '{"path":"\u00e9"}']


def test_an_agent_that_reads_nothing_cancels_the_session(pipe: tuple[int, IO[bytes]]) -> None:
    cancellation = Cancellation()
    lines = JsonLines(pipe[1], cancellation, stall_seconds=0.05)
    with pytest.raises(TimeoutError, match="the agent took no answer"):
        lines.send({"path": "x" * 1_000_000})
    assert cancellation.is_cancelled


def test_a_cancelled_session_sends_nothing_more(pipe: tuple[int, IO[bytes]]) -> None:
    cancellation = Cancellation()
    lines = JsonLines(pipe[1], cancellation)
    cancellation.cancel()
    with pytest.raises(Cancelled):
        lines.send(Empty())
