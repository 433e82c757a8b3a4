"""Set-up of logging to the journal, syslog, a file, or standard error."""

import atexit
import logging
import os
import socket
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from turku.errors import ConfigurationError

_FORMAT = "[%(asctime)s %(name)s] %(levelname)s: %(message)s"
_JOURNAL_SOCKET = "/run/systemd/journal/socket"
SHOWN_WARNINGS = 200
"""Messages shown of each sort (one logging statement). Further ones of a run are counted."""
NOTICE = logging.INFO + 5
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (NOTICE, 5), (logging.INFO, 6))
"""The lowest level of logging that has each priority of syslog(3). Lower levels are for debugging (7)."""
_JOURNAL_CHARACTERS = 8000
"""The longest line sent to the journal's stream. The journal would split at 48 KiB and read a priority in the rest."""
STANDARD_ERROR = 2


def one_line(text: str | bytes) -> str:
    """Return the text on one line, safe for a log or terminal, with control characters and bad bytes escaped."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable()
        else character.encode("utf-8", "surrogateescape").hex(" ").join(("<", ">"))
        if "\udc80" <= character <= "\udcff"
        else character.encode("unicode_escape").decode()
        for character in text
    )


def is_journal(descriptor: int) -> bool:
    """Return True where the file descriptor is the stream to the journal that systemd gave this process.

    The journal reads priorities at the beginning of its lines (sd-daemon(3)), and adds time and program itself.
    """
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def with_priority(text: str, level: int) -> str:
    """Return the lines of the text as the journal's stream takes them, each with its priority.

    ``level`` is one of logging's. What stands in the text cannot change the priority.
    """
    lines = (
        line[at : at + _JOURNAL_CHARACTERS]
        for line in text.split("\n")
        for at in range(0, max(len(line), 1), _JOURNAL_CHARACTERS)
    )
    return "\n".join(f"<{_priority(level)}>{line}" for line in lines)


def _priority(level: int) -> int:
    return next((priority for least, priority in _PRIORITIES if level >= least), 7)


class _OneLineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        # Names from machines reach log messages. A line break in one must not forge a second entry.
        record.msg = one_line(record.getMessage())
        record.args = None
        return super().format(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802  (logging calls it)
        # The text of an exception may have line breaks, too.
        return "\n".join(f"  | {one_line(line)}" for line in super().formatException(ei).splitlines())


class JournalStreamFormatter(_OneLineFormatter):
    """The form of records in the journal's stream: priority, a short name of the logger (or ``name``), and the text."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        name = record.name.rpartition(".")[2] if record.name.startswith("turku.") else record.name
        return with_priority(f"{one_line(self._name or name)}: {text}", record.levelno)


class _TerminalHandler(logging.StreamHandler[Any]):
    """The handler of standard error: a person's terminal, a pipe, or the journal's stream."""

    def __init__(self, name: str | None) -> None:
        stream = sys.stderr
        if is_journal(STANDARD_ERROR):
            # The guard of the stream would put a priority before each line that is not ours.
            super().__init__(getattr(stream, "unguarded", stream))
            self.setFormatter(JournalStreamFormatter(name))
        else:
            super().__init__(stream)
            shown = "%(name)s" if name is None else _in_format(name)
            self.setFormatter(_OneLineFormatter(_FORMAT.replace("%(name)s", shown)))


class _JournalHandler(logging.Handler):
    """A handler for journald's native socket: one datagram for each entry, with fields as KEY=VALUE lines."""

    def __init__(self, identifier: str, prefix: str) -> None:
        super().__init__()
        self._identifier = identifier
        self._prefix = prefix
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(_JOURNAL_SOCKET)
        except OSError:
            self._socket.close()
            raise

    def emit(self, record: logging.LogRecord) -> None:
        message = one_line(self._prefix + record.getMessage())
        fields = (
            f"MESSAGE={message}\nPRIORITY={_priority(record.levelno)}\n"
            f"SYSLOG_IDENTIFIER={self._identifier}\nTURKU_LOGGER={record.name}\n"
        )
        try:
            self._socket.send(fields.encode())
        except OSError:
            self.handleError(record)


class _Bounds(logging.Filter):
    """A filter that passes a bounded number of warnings and errors of each sort, for all handlers alike.

    A damaged disk or a hostile peer can cause a warning for each of a million files.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        # The first handler decides.
        is_shown: bool | None = getattr(record, "turku_is_shown", None)
        if is_shown is None:
            sort = (record.name, str(record.msg))
            with self._lock:
                if sort in self._counts or len(self._counts) < _SORTS:
                    self._counts[sort] += 1
                is_shown = self._counts[sort] <= SHOWN_WARNINGS
            record.__dict__["turku_is_shown"] = is_shown
        return is_shown

    def tell(self) -> None:
        """Log the number of messages that were not shown."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        for (name, text), count in counts.items():
            if count > SHOWN_WARNINGS:
                # The text still has the placeholders of our code.
                arguments = (count - SHOWN_WARNINGS, text[:_SORT_LIMIT])
                logging.getLogger(name).warning("%d more messages are not shown, of the sort %r", *arguments)


_SORT_LIMIT = 200
_SORTS = 1000
_bounds = _Bounds()


@atexit.register
def tell_hidden() -> None:
    """Log the number of warnings of this run that were not shown, by sort."""
    _bounds.tell()


def _in_format(text: str) -> str:
    return one_line(text).replace("%", "%%")


def _destination_handler(destination: str, program: str, prefix: str) -> logging.Handler:
    if destination == "systemd":
        try:
            return _JournalHandler(program, prefix)
        except OSError:
            # No journal listens here, as in many containers.
            destination = "syslog"
    if destination == "syslog":
        from logging.handlers import SysLogHandler

        handler: logging.Handler = SysLogHandler(
            address="/dev/log" if Path("/dev/log").exists() else ("localhost", 514)
        )
        handler.setFormatter(_OneLineFormatter(f"{program}: [%(name)s] %(levelname)s: {_in_format(prefix)}%(message)s"))
        return handler
    path = Path(destination)
    if not path.is_absolute():
        raise ConfigurationError(f"log_file: {destination!r} is neither 'systemd', 'syslog' nor an absolute path")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigurationError(f"log_file: cannot open {path}: {error.strerror or error}") from error
    handler.setFormatter(_OneLineFormatter(_FORMAT.replace("%(message)s", f"{_in_format(prefix)}%(message)s")))
    return handler


def _is_in_journal() -> bool:
    return any(isinstance(handler, _JournalHandler) for handler in logging.getLogger().handlers)


def leave_terminal() -> bool:
    """Log no longer to standard error. Return True if records still go to a log that standard error does not reach."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _TerminalHandler):
            root.removeHandler(handler)
    return bool(root.handlers) and not (_is_in_journal() and is_journal(STANDARD_ERROR))


def set_up(
    program: str,
    *,
    destination: str | None = None,
    debug: bool = False,
    terminal: bool = True,
    terminal_name: str | None = None,
    prefix: str = "",
    is_bounded: bool = True,
    level: int = logging.INFO,
) -> None:
    """Send the records of all loggers to ``destination`` and, with ``terminal``, to standard error.

    ``destination`` is ``systemd``, ``syslog``, a path, or None. ``terminal_name`` stands in place of the logger's name
    on standard error. ``prefix`` goes before each message in the destination, so that parallel runs can be told apart
    there. A program that runs for ever is not ``is_bounded``: all its warnings are shown, as with ``debug``. Records
    below the ``level`` are for ``debug`` alone.
    """
    tell_hidden()
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        with suppress(OSError):
            handler.close()
    root.setLevel(logging.DEBUG if debug else level)
    # With a full disk or without a reader, no traceback is printed for each record.
    logging.raiseExceptions = debug
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    if destination is not None:
        root.addHandler(_destination_handler(destination, program, prefix))
    # The journal must not have each record twice.
    if terminal and not (_is_in_journal() and is_journal(STANDARD_ERROR)):
        root.addHandler(_TerminalHandler(terminal_name))
    if is_bounded and not debug:
        for handler in root.handlers:
            handler.addFilter(_bounds)
