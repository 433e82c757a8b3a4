"""The owner of the agent's state: its user while it is set up, and root once that user is gone.

The user's number may be given to another user later, who must not find the machine's secrets.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from turku.agent.config.loading import IDENTITY_KEYS
from turku.core.configuration import directory as configuration
from turku.core.setup.host import Host
from turku.core.setup.step import DONE, Action, Finding, State, Step

_PRIVATE = 0o700
_ASIDE = ".set-aside"


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
    """Give the state to root, without what its user could have put there to decide what root runs.

    Configuration in a state that belongs to root counts like an administrator's, so only the identity stays in force.
    """
    path = host.path(state)
    if path.is_dir() and not path.is_symlink():
        # First, so that nobody else adds to it, whatever its mode was. Its owner is last, because that makes it count.
        path.chmod(_PRIVATE)
        _set_foreign_configuration_aside(path / "config.d")
        _give(path, 0, 0)
        os.chown(path, 0, 0, follow_symlinks=False)


def _set_foreign_configuration_aside(directory: Path) -> None:
    """Rename the files that are read as configuration and have more than the identity, so that nobody reads them."""
    if directory.is_symlink():
        directory.rename(directory.with_name(f"{directory.name}{_ASIDE}"))
    if not directory.is_dir():
        return
    directory.chmod(_PRIVATE)
    for path in sorted(directory.iterdir()):
        status = path.lstat()
        is_plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        found = configuration.read_one(path) if is_plain else None
        # A damaged file says nothing, and has to stay, because a copy of the identity only replaces one that is there.
        is_identity = found is not None and found.content.keys() <= set(IDENTITY_KEYS)
        if path.suffix in configuration.SUFFIXES and not is_identity:
            path.rename(path.with_name(f"{path.name}{_ASIDE}"))


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
