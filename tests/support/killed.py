"""Killing a process at a counted step: SIGKILL just before its n-th change to a file system or its n-th child.

    while killed_at_step(step, work):
        step += 1

Steps are Python's audit events, so nothing is replaced and what runs is what runs in production.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

_STEPS = frozenset(
    {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod", "subprocess.Popen"}
)
_CLONING_AND_SUBVOLUMES = 0x94
"""The kind of the kernel's calls that change a file system otherwise."""


def killed_at_step(number: int, work: Callable[[], Any]) -> bool:
    """Return True if ``work``, in a forked child, was killed before its step ``number`` (from 1), not if it ended."""

    def act() -> None:
        sys.addaudithook(_Hook(number))
        work()

    return _is_killed(act)


def killed_at_call(number: int, names: frozenset[str], work: Callable[[], Any]) -> bool:
    """Return True if ``work``, run in a forked child, was killed before its ``number``-th call (from 1) of a function
    of the interpreter's own that has one of the names, and False if it ended. Only its main thread counts.
    """

    def act() -> None:
        left = [number]

        def hook(_frame: Any, event: str, function: Any) -> None:
            if event == "c_call" and function.__name__ in names:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(hook)
        work()

    return _is_killed(act)


def _is_killed(act: Callable[[], Any]) -> bool:
    """Return True if it was, in a forked child, and False if it ended."""
    status = _forked(act)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the work failed by itself"
    return False


class _Hook:
    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _STEPS or _makes_a_file(event, arguments) or _changes_a_file_system(event, arguments):
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def _makes_a_file(event: str, arguments: tuple[Any, ...]) -> bool:
    return event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & os.O_CREAT)


def _changes_a_file_system(event: str, arguments: tuple[Any, ...]) -> bool:
    # The number of a call says whether something is written, and of which kind it is.
    if event != "fcntl.ioctl":
        return False
    request = arguments[1] & 0xFFFFFFFF
    return bool(request >> 30 & 1) and request >> 8 & 0xFF == _CLONING_AND_SUBVOLUMES


def as_user(user: int, group: int, work: Callable[[], Any]) -> None:
    """Run ``work`` in a forked child as another user, without groups and privileges. Only root can.

    Its modules must be imported before: that user may not be able to read the program's files.
    """

    def act() -> None:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
        work()

    assert os.waitstatus_to_exitcode(_forked(act)) == 0, "the work as another user failed"


def _forked(act: Callable[[], None]) -> int:
    """The wait status of a forked child that does this: exit code 0, or 1 where it raised."""
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]
