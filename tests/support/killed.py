"""Killing a process at a counted step: SIGKILL just before its n-th change to a file system or its n-th child.

    while killed_at_step(step, work):
        step += 1

Steps are Python's audit events, so nothing is replaced and what runs is what runs in production.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

_STEPS = frozenset(
    {
        "os.rename",
        "os.remove",
        "os.mkdir",
        "os.rmdir",
        "os.symlink",
        "os.link",
        "os.chmod",
        "subprocess.Popen",
    }
)


def killed_at_step(number: int, work: Callable[[], Any]) -> bool:
    """Whether ``work``, run in a forked child, was killed before its step ``number`` (from 1); False when it ended."""
    child = os.fork()
    if child == 0:
        try:
            sys.addaudithook(_Hook(number))
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the work failed by itself"
    return False


class _Hook:
    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _STEPS or (event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT):
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def as_user(user: int, group: int, work: Callable[[], Any]) -> None:
    """Run ``work`` in a forked child as another user, without groups and privileges; only root can.

    What it needs must be imported before: that user may not be able to read the program's files.
    """
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.waitstatus_to_exitcode(status) == 0, "the work as another user failed"
