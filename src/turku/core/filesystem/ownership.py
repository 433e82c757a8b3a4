"""The one rule for who may change a file or directory that root relies on."""

import os
import stat

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def others_may_change(status: os.stat_result, *, is_sticky_enough: bool = False) -> bool:
    """Return True if another user than root may change what has this status.

    ``is_sticky_enough`` is for a directory on the way to an entry of root's: in a sticky one such as /tmp, only the
    owner of an entry may replace it.
    """
    is_shared = bool(status.st_mode & _OTHERS_WRITE) and not (is_sticky_enough and status.st_mode & stat.S_ISVTX)
    return status.st_uid != 0 or is_shared
