"""The owner of the agent's state: its user while it is set up, and root once that user is gone.

The user's number may be given to another user later, who must not find the machine's secrets.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from turku.core.setup.host import Host
from turku.core.setup.step import DONE, Action, Finding, State, Step


def step(state: Path, user: str) -> Step:
    """Return the step that gives a state of an earlier setup to the agent's user."""

    def find(host: Host) -> Finding:
        account = host.account(user)
        # Without the user, everything that is there will be another's.
        others = _others(host.path(state), None if account is None else account.uid)
        return Finding(State.NEEDED, "it is from an earlier setup") if any(others) else DONE

    def act(host: Host) -> None:
        account = host.account(user)
        if account is not None:
            _give(host.path(state), account.uid, account.gid)

    return Action(f"give what is in {state} to {user}", find, act)


def give_to_root(host: Host, state: Path) -> None:
    """Give the state to root."""
    path = host.path(state)
    if path.is_dir() and not path.is_symlink():
        _give(path, 0, 0)
        os.chown(path, 0, 0, follow_symlinks=False)


def _give(top: Path, uid: int, gid: int) -> None:
    # No link is followed, and a file with a second name may be another user's.
    for _directory, names, files, descriptor in os.fwalk(top, follow_symlinks=False):
        for name in (*names, *files):
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode) or found.st_nlink == 1:
                os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)


def _others(top: Path, uid: int | None) -> Iterator[str]:
    """Yield the names of what belongs to somebody else. A lock may be root's."""
    if not top.is_dir():
        return
    for _directory, names, files, descriptor in os.fwalk(top, follow_symlinks=False):
        for name in (*names, *files):
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            is_single = stat.S_ISDIR(found.st_mode) or found.st_nlink == 1
            if found.st_uid != uid and is_single and not name.endswith(".lock"):
                yield name
