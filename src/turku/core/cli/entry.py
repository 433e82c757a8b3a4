"""The start of every program: its errors become text on standard error and exit codes."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from turku.core.cli.output import guard_streams, say_error
from turku.core.log import NOTICE, one_line
from turku.errors import ApiUnreachable, LockHeld, TurkuError

EXIT_INTERRUPTED = 130
EXIT_INTERNAL = 70
_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_CALM = ((LockHeld, NOTICE), (ApiUnreachable, logging.WARNING))
"""Errors that a timer's next run overcomes by itself, and the level with which the journal gets them."""


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived. As a BaseException it runs every ``finally``, and no handler swallows it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


def _raise_terminated(signal_number: int, _frame: FrameType | None) -> None:
    # A second signal must not interrupt the cleanup that the first one started. SIG_IGN would not do: children that
    # the cleanup starts would inherit it and could not be ended.
    for ending in _ENDING_SIGNALS:
        signal.signal(ending, _do_nothing)
    raise Terminated(signal_number)


def _do_nothing(_signal_number: int, _frame: FrameType | None) -> None:
    return


def print_error(error: TurkuError) -> None:
    """Print message, details and hint on standard error."""
    level = next((level for branch, level in _CALM if isinstance(error, branch)), logging.ERROR)
    # A name that contains a line break must not look like another line of the error.
    first, *more = error.message.split("\n")
    say_error(f"error [{error.code}]: {one_line(first)}", level=level)
    for line in more:
        say_error(f"  {one_line(line.strip())}", level=level)
    for line in error.details.splitlines():
        say_error(f"  | {one_line(line)}", level=level)
    if error.hint:
        say_error(f"  hint: {one_line(error.hint)}", level=level)


def run(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run ``main`` with the command line's arguments and exit with its code, or with the code of its error.

    An exception outside the tree of errors is a fault in Turku. It is shown in one line, and with TURKU_DEBUG=1 or
    ``--debug`` as a traceback.
    """
    for signal_number in _ENDING_SIGNALS:
        signal.signal(signal_number, _raise_terminated)
    guard_streams()
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except TurkuError as error:
        print_error(error)
        code = error.exit_code
    except KeyboardInterrupt:
        say_error("interrupted", level=NOTICE)
        code = EXIT_INTERRUPTED
    except Terminated as terminated:
        say_error("terminated", level=NOTICE)
        code = 128 + terminated.signal_number
    except BrokenPipeError:
        # The reader, such as head, has closed the pipe. The interpreter must not flush into it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except Exception as error:
        if os.environ.get("TURKU_DEBUG") or "--debug" in sys.argv:
            logging.getLogger(__name__).exception("internal error")
        origin = error.__traceback__
        while origin is not None and origin.tb_next is not None:
            origin = origin.tb_next
        place = f"{origin.tb_frame.f_code.co_filename}:{origin.tb_lineno}" if origin else "unknown place"
        say_error(f"error [internal]: {type(error).__name__}: {one_line(str(error))} (at {place})")
        say_error("  hint: this is a fault in Turku; run again with TURKU_DEBUG=1 and report what it prints")
        code = EXIT_INTERNAL
    sys.exit(code)
