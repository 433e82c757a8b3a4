"""The source option ``one_file_system``: nothing that is mounted below a source is backed up with it."""

from __future__ import annotations

import posixpath

OPTION = "one_file_system"


def is_on(path: str, choice: object) -> bool:
    """Return the choice; where it is neither true nor false, True for the whole system (``/``) and False for all else.

    A whole system has /proc, /sys and /dev mounted in it, and as a rule disks of others.
    """
    return choice if isinstance(choice, bool) else posixpath.normpath(path) in ("/", "//")
