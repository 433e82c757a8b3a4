"""Doing file work as the user it belongs to, so that root follows no link that user planted (threats N4)."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from turku.errors import ConfigurationError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def only_root_can_change(path: Path) -> bool:
    """True when no one but root can change what the path leads to: each directory above it is root's, none a link."""
    for directory in path.parents:
        try:
            status = directory.lstat()
        except FileNotFoundError:
            continue
        # In a sticky directory, as /tmp, only an entry's owner may replace it.
        is_shared = bool(status.st_mode & _OTHERS_WRITE) and not status.st_mode & stat.S_ISVTX
        if status.st_uid != 0 or is_shared or stat.S_ISLNK(status.st_mode):
            return False
    return True


def name_of(uid: int) -> str:
    """The user's name; the number as ``runuser`` and ``sudo`` take it, ``#1234``, where it has none (a container's)."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


@contextmanager
def acting_as(user: str, *, for_path: Path) -> Iterator[tuple[int, int] | None]:
    """(uid, gid) that new files must be given, None where they have the right owner by themselves.

    Root becomes ``user`` for the block, unless only root can change ``for_path``: there it stays root. Anyone else
    stays who they are. The process must have one thread.
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
