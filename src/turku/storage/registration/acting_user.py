"""File access as the owner of the files, so that root follows no link that this user planted (threats N4)."""

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turku.core.filesystem.ownership import others_may_change
from turku.errors import ConfigurationError


def only_root_can_change(path: Path) -> bool:
    """Return True if only root can change what the path leads to.

    Each directory above it is then root's, and no part of it is a link.
    """
    for directory in path.parents:
        try:
            status = directory.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(status.st_mode) or others_may_change(status, is_sticky_enough=True):
            return False
    return True


def name_of(uid: int) -> str:
    """Return the user's name, or ``#1234``, as ``runuser`` and ``sudo`` take it, if there is none (in a container)."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


@contextmanager
def acting_as(user: str, *, for_path: Path) -> Iterator[tuple[int, int] | None]:
    """Act as ``user`` for the block.

    Yield the (uid, gid) to give to new files, or None if they are right by themselves. Root becomes ``user``, unless
    only root can change ``for_path``: then it stays root. Any other user stays the same. The process must have one
    thread.
    """
    if os.geteuid() != 0 or user == "root":
        yield None
        return
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise ConfigurationError(f"authorized_keys_user: there is no user {user!r} on this system") from None
    if only_root_can_change(for_path):
        yield account.pw_uid, account.pw_gid
        return
    group, groups = os.getegid(), os.getgroups()
    try:
        os.initgroups(user, account.pw_gid)
        os.setegid(account.pw_gid)
        os.seteuid(account.pw_uid)
        yield None
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
