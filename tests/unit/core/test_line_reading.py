"""Lines of a program that says much: whole, in order, in pieces of a bounded length, and none is kept for long."""

import io
import os
import threading
import time

import pytest

from turku.core.program_output.line_reading import drained, lines_of

LIMIT = 20


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"", []),
        (b"\n", [b"\n"]),
        (b"one\ntwo\n", [b"one\n", b"two\n"]),
        (b"one\n\nno break at the end", [b"one\n", b"\n", b"no break at the end"]),
        (b"nineteen characters\nx\n", [b"nineteen characters\n", b"x\n"]),
        (b"twenty characters ...\n", [b"twenty characters ..", b".\n"]),
        (b"x" * 45, [b"x" * 20, b"x" * 20, b"x" * 5]),
    ],
)
def test_lines_are_whole_and_bounded(text: bytes, lines: list[bytes]) -> None:
    assert list(lines_of(io.BytesIO(text), limit_bytes=LIMIT)) == lines


def test_a_line_that_comes_in_parts_is_one() -> None:
    reading, writing = os.pipe()

    def write() -> None:
        for part in (b"be", b"gun\nan", b"d ended\nla", b"st"):
            os.write(writing, part)
            time.sleep(0.05)
        os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(reading, "rb") as stream:
        assert list(lines_of(stream, limit_bytes=LIMIT)) == [b"begun\n", b"and ended\n", b"last"]
    writer.join()


def test_an_endless_line_is_handed_out_while_it_comes() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream:
        os.write(writing, b"x" * 50)
        lines = lines_of(stream, limit_bytes=LIMIT)
        assert [next(lines), next(lines)] == [b"x" * 20, b"x" * 20]
        os.close(writing)
        assert list(lines) == [b"x" * 10]


def test_many_lines_are_read_at_once() -> None:
    text = b"".join(b"line %d\n" % number for number in range(50_000))
    assert list(lines_of(io.BytesIO(text), limit_bytes=LIMIT)) == text.splitlines(keepends=True)


@pytest.mark.parametrize("fault", [None, RuntimeError, KeyboardInterrupt])
def test_the_rest_of_a_pipe_is_read(fault: type[BaseException] | None) -> None:
    stream = io.BytesIO(b"x" * 1_000_000)
    if fault is None:
        with drained(stream):
            stream.read(1)
    else:
        with pytest.raises(fault), drained(stream):
            raise fault
    assert stream.read() == b""


def test_a_stream_that_is_closed_meanwhile_has_nothing_left() -> None:
    stream = io.BytesIO(b"x")
    with drained(stream):
        stream.close()
