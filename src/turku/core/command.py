"""The only module that starts processes.

Programs are started with argument lists, never by a shell, and with an environment made from an allow-list. Each child
has its own process group and an owner that ends it. Output comes line by line, decoded leniently and bounded in memory.
"""

import ctypes
import logging
import os
import selectors
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from turku.core.cancellation import NEVER, Cancellation
from turku.core.log import one_line
from turku.errors import CommandFailed

_log = logging.getLogger(__name__)

KEPT_LINES = 25
LINE_LIMIT_BYTES = 16 * 1024
_ALLOWED_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "USER", "LOGNAME")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PR_SET_PDEATHSIG: Final = 1
# The C library that this interpreter is linked with. Looking it up by name would start programs.
_LIBC = ctypes.CDLL(None, use_errno=True)
_DEFAULT_ACTION: Final = ctypes.c_void_p(None)


@dataclass(frozen=True)
class CompletedProgram:
    """The result of a program that ended."""

    argv: tuple[str, ...]
    exit_code: int
    """Exit code as a shell shows it: 128 plus the signal number for a program ended by a signal."""
    last_lines: tuple[str, ...]
    """Last lines of standard error, and of standard output if nobody else reads it. At most KEPT_LINES."""
    stdout: bytes
    """Standard output, if it was captured."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child: our allow-listed variables, a PATH in any case, and ``extra``."""
    result = {name: os.environ[name] for name in _ALLOWED_ENVIRONMENT if name in os.environ}
    result.setdefault("PATH", _DEFAULT_PATH)
    result.update(extra or {})
    return result


def _prepare_child() -> None:
    # Runs between fork and exec. A parent that is killed by SIGKILL cannot end its children, so the kernel does.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # `program &` in a shell script ignores SIGINT, and children that we end by SIGINT would inherit that.
    _LIBC.signal(signal.SIGINT, _DEFAULT_ACTION)


class Child:
    """A running program in its own process group. Use ``start`` to get one."""

    def __init__(
        self, argv: Sequence[str], process: subprocess.Popen[bytes], *, end_signal: int = signal.SIGINT
    ) -> None:
        self.argv = tuple(argv)
        self._process = process
        self._end_signal = end_signal
        self._last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._readers: dict[IO[bytes], threading.Thread] = {}

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stdin(self) -> IO[bytes]:
        if self._process.stdin is None:
            raise ValueError("started without stdin")
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        if self._process.stdout is None:
            raise ValueError("started without stdout")
        return self._process.stdout

    @property
    def last_lines(self) -> tuple[str, ...]:
        return tuple(self._last_lines)

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        code = self._process.poll()
        return None if code is None else _shell_code(code)

    def wait(self, timeout_seconds: float, cancellation: Cancellation = NEVER) -> int:
        """Wait for the end of the program and return its exit code.

        Raises CommandFailed if it has not ended by then, and what ``cancellation`` raises. In both cases it still runs.
        """
        if self._process.poll() is None:
            _await_end(self._process.pid, timeout_seconds, cancellation)
        try:
            code = _shell_code(self._process.wait(0))
        except subprocess.TimeoutExpired:
            raise CommandFailed(
                f"{self.argv[0]} did not end within {timeout_seconds:g} s", details="\n".join(self._last_lines)
            ) from None
        for reader in self._readers.values():
            # A grandchild may hold the pipe open. Its lines are not worth waiting for.
            reader.join(2)
        return code

    def end(self, grace_seconds: float = 5.0) -> None:
        """End the whole process group and reap the child.

        Its end signal comes first (by default SIGINT), then SIGTERM, then SIGKILL, each with its share of the grace.
        """
        for signal_number in (self._end_signal, signal.SIGTERM):
            if not self._signal(signal_number):
                break
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_seconds / 2)
                break
        self._signal(signal.SIGKILL)
        self._process.wait()
        for reader in self._readers.values():
            reader.join(1)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            # A pipe that a process outside the group holds open cannot be closed while a reader waits on it.
            if stream is not None and not (stream in self._readers and self._readers[stream].is_alive()):
                with suppress(OSError):
                    stream.close()

    def _signal(self, signal_number: int) -> bool:
        try:
            os.killpg(self._process.pid, signal_number)
        except ProcessLookupError:
            return False
        except PermissionError:
            # A member of the group runs as another user (bubblewrap, sudo). The leader is ours in any case.
            self._process.send_signal(signal_number)
        return True

    def _follow(
        self, stream: IO[bytes], on_line: Callable[[str], None] | None, on_bytes: Callable[[bytes], None] | None
    ) -> None:
        for raw in _bounded_lines(stream):
            line = one_line(raw)
            self._last_lines.append(line)
            if on_line is not None or on_bytes is not None:
                try:
                    if on_bytes is not None:
                        on_bytes(raw)
                    if on_line is not None:
                        on_line(line)
                except Exception:
                    # The pipe must still be read, or the child waits for ever to write its next line.
                    _log.exception("the listener to %s failed; its lines are read without it from here", self.argv[0])
                    on_line = on_bytes = None

    def follow(
        self, stream: IO[bytes], on_line: Callable[[str], None] | None, on_bytes: Callable[[bytes], None] | None = None
    ) -> None:
        """Read ``stream`` to its end in a thread. Keep the last lines and pass each one on (``start``)."""
        reader = threading.Thread(target=self._follow, args=(stream, on_line, on_bytes), daemon=True)
        reader.start()
        self._readers[stream] = reader


def _await_end(process: int, timeout_seconds: float, cancellation: Cancellation) -> None:
    """Return as soon as the child ends, without reaping it. ``Popen.wait`` only polls."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            selector.register(cancellation.descriptor, selectors.EVENT_READ)
            selector.select(timeout_seconds)
    finally:
        os.close(descriptor)
    cancellation.check()


def _shell_code(code: int) -> int:
    return 128 - code if code < 0 else code


def _bounded_lines(stream: IO[bytes]) -> Iterator[bytes]:
    while line := stream.readline(LINE_LIMIT_BYTES):
        yield line.rstrip(b"\r\n")


@contextmanager
def start(
    argv: Sequence[str | bytes | Path],
    *,
    on_line: Callable[[str], None] | None = None,
    on_bytes: Callable[[bytes], None] | None = None,
    extra_environment: Mapping[str, str] | None = None,
    stdin: bool | int = False,
    stdout: bool | int = False,
    working_directory: Path | None = None,
    pass_descriptors: Sequence[int] = (),
    end_signal: int = signal.SIGINT,
) -> Iterator[Child]:
    """Yield a running child. It is ended with the block, whatever happens in it.

    ``stdin`` and ``stdout`` are True for a pipe, a file descriptor, or False for none. Without a pipe, stdout goes to
    the kept lines and ``on_line``, as stderr does. ``on_line`` is called from a reader thread with each line, made
    printable, and ``on_bytes`` with the line as it came, without its line break. Raises CommandFailed when the program
    cannot be started.
    """
    arguments = [os.fsdecode(argument) for argument in argv]

    def stream(choice: bool | int, default: int) -> int:  # noqa: FBT001  (as its caller has it)
        return default if choice is False else subprocess.PIPE if choice is True else choice

    try:
        process = subprocess.Popen(
            arguments,
            stdin=stream(stdin, subprocess.DEVNULL),
            stdout=stream(stdout, subprocess.PIPE),
            stderr=subprocess.PIPE if stdout is not False else subprocess.STDOUT,
            env=environment(extra_environment),
            cwd=working_directory,
            start_new_session=True,
            close_fds=True,
            pass_fds=tuple(pass_descriptors),
            preexec_fn=_prepare_child,  # noqa: PLW1509  (async-signal-safe system calls)
        )
    except OSError as error:
        raise CommandFailed(
            f"cannot start {arguments[0]}: {error.strerror or error}",
            hint=f"is the program installed and on PATH ({environment()['PATH']})?",
        ) from error
    child = Child(arguments, process, end_signal=end_signal)
    try:
        output = process.stdout if stdout is False else process.stderr
        if output is not None:
            child.follow(output, on_line, on_bytes)
        yield child
    finally:
        child.end()


def run(
    argv: Sequence[str | bytes | Path],
    *,
    timeout_seconds: float,
    input_bytes: bytes | None = None,
    capture_limit_bytes: int = 1024 * 1024,
    extra_environment: Mapping[str, str] | None = None,
    working_directory: Path | None = None,
    check: bool = True,
) -> CompletedProgram:
    """Run a program to its end and return the result, with standard output up to ``capture_limit_bytes``.

    The input may have at most the size of a pipe's buffer (64 KiB). Raises CommandFailed if the program cannot start,
    does not end in time, prints more than the limit, or (with ``check``) ends with another code than 0.
    """
    with start(
        argv,
        stdin=input_bytes is not None,
        stdout=True,
        extra_environment=extra_environment,
        working_directory=working_directory,
    ) as child:
        if input_bytes is not None:
            with suppress(BrokenPipeError), child.stdin:
                child.stdin.write(input_bytes)
        stdout = _capture(child, timeout_seconds, capture_limit_bytes)
        code = child.wait(timeout_seconds)
        if check and code != 0:
            raise CommandFailed(f"{child.argv[0]} ended with exit code {code}", details="\n".join(child.last_lines))
        return CompletedProgram(child.argv, code, child.last_lines, stdout)


def _capture(child: Child, timeout_seconds: float, limit_bytes: int) -> bytes:
    captured = bytearray()
    # A real child needs real waiting, so no Clock is passed in.
    deadline = time.monotonic() + timeout_seconds
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not selector.select(remaining):
                raise CommandFailed(
                    f"{child.argv[0]} did not end within {timeout_seconds:g} s", details="\n".join(child.last_lines)
                )
            chunk = os.read(child.stdout.fileno(), 65536)
            if not chunk:
                return bytes(captured)
            captured += chunk
            if len(captured) > limit_bytes:
                raise CommandFailed(f"{child.argv[0]} printed more than {limit_bytes} bytes")
