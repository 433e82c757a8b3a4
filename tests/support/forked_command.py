"""One run of a program's entry point in a forked child: the imports are made once, so that thousands of runs are cheap.

    ended = forked(cli.ping_entry, ["turku-storage-ping", UUID], input_bytes=b"...")
    ended.exit_code, ended.output, ended.seconds, ended.largest_mib

``exit_code`` is None where the run had to be killed at its time limit. What is written to the child after it stopped
reading is lost, as with a pipe.
"""

import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from turku.core import cancellation

_KEPT_BYTES = 200_000


@dataclass(frozen=True)
class Ended:
    """The end of a command."""

    exit_code: int | None
    output: str
    """Standard output and standard error."""
    seconds: float
    largest_mib: float
    """The most memory that was resident. It begins with what the parent had at the fork."""


def forked(
    entry: Callable[[], NoReturn], argv: Sequence[str], *, input_bytes: bytes, timeout_seconds: float = 60
) -> Ended:
    """Run ``entry`` with ``input_bytes`` and then the end of its input, and return how it ended."""
    reading_input, writing_input = os.pipe()
    reading_output, writing_output = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(writing_input)
        os.close(reading_output)
        _run(entry, argv, reading_input, writing_output)
    os.close(reading_input)
    os.close(writing_output)
    output, is_over = _talk(writing_input, reading_output, input_bytes, begun + timeout_seconds)
    if not is_over:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    exit_code = os.waitstatus_to_exitcode(status) if is_over else None
    seconds = time.monotonic() - begun
    return Ended(exit_code, output.decode("utf-8", "replace"), seconds, usage.ru_maxrss / 1024)


def _run(entry: Callable[[], NoReturn], argv: Sequence[str], standard_input: int, standard_output: int) -> NoReturn:
    code = 255
    try:
        os.dup2(standard_input, 0)
        os.dup2(standard_output, 1)
        os.dup2(standard_output, 2)
        os.closerange(3, 256)
        # The parent may have made its descriptor. A program that begins anew has none.
        cancellation.NEVER._descriptor = None
        # Made anew: those of the parent may be a test runner's.
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
        sys.argv = list(argv)
        entry()
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _talk(writing: int, reading: int, content: bytes, deadline: float) -> tuple[bytes, bool]:
    """Return the child's output, and whether it closed its output before the deadline."""
    os.set_blocking(writing, False)
    output, rest, is_open = bytearray(), memoryview(content), True
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    poll.register(writing, select.POLLOUT)
    try:
        while True:
            if is_open and not rest:
                poll.unregister(writing)
                os.close(writing)
                is_open = False
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return bytes(output), False
            for descriptor, _event in poll.poll(remaining * 1000):
                if descriptor == writing:
                    try:
                        rest = rest[os.write(writing, rest[:65_536]) :]
                    except BrokenPipeError:
                        rest = rest[:0]
                elif chunk := os.read(reading, 65_536):
                    output += chunk[: _KEPT_BYTES - len(output)]
                else:
                    return bytes(output), True
    finally:
        os.close(reading)
        if is_open:
            os.close(writing)
