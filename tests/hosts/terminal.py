"""A terminal of 80 columns, at which somebody types commands and answers questions."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping

_COLUMNS, _ROWS = 80, 24
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def typed(arguments: list[str], answers: Mapping[str, str], *, timeout_seconds: float) -> tuple[int, str]:
    """Return the exit code of a command, and what the terminal shows, with the answers that were typed.

    ``answers`` maps a regular expression to what is typed when the output ends with it.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    process = subprocess.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown, answered, deadline = b"", 0, time.monotonic() + timeout_seconds
    try:
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 0.5)[0]:
                if process.poll() is not None:
                    break
                continue
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
            tail = shown[answered:].decode(errors="replace")
            for question, answer in answers.items():
                if re.search(f"{question}\\Z", tail):
                    os.write(ours, f"{answer}\n".encode())
                    answered = len(shown)
        else:
            process.kill()
            raise AssertionError(f"{arguments[-1]} did not end within {timeout_seconds} s:\n{shown.decode()}")
        return process.wait(10), _as_seen(shown.decode(errors="replace"))
    finally:
        os.close(ours)


def _as_seen(text: str) -> str:
    """Return what stays on the screen: a carriage return begins the line anew."""
    lines = _CONTROL.sub("", text).replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2].rstrip() for line in lines)
