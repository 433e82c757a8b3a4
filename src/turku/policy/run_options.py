"""Source options that say what a run reads and keeps: ``not_preserved``, ``incomplete`` and ``one_file_system``."""

import posixpath
from collections.abc import Iterable
from enum import StrEnum

from turku.errors import InvalidValue

INCOMPLETE = "incomplete"
KEEP, FAIL = "keep", "fail"
"""The choices of ``incomplete``: a snapshot with warnings, or no snapshot, where single files could not be read."""
ONE_FILE_SYSTEM = "one_file_system"


class FileProperty(StrEnum):
    """A property of files that a source may leave out of its backups.

    Content, owner, mode and times are always kept. These properties are kept too, unless the source names them.
    """

    ACLS = "acls"
    """POSIX access control lists, access and default."""
    ATTRIBUTES = "attributes"
    """Extended attributes: ``user.*``, ``trusted.*`` and ``security.*`` (file capabilities, SELinux labels)."""
    HARD_LINKS = "hard_links"
    """Several names of one file."""
    HOLES = "holes"
    """Ranges of zeros that take no space."""


def parse_not_preserved(names: object) -> frozenset[FileProperty]:
    """Return the properties that the option ``not_preserved`` names. Raises InvalidValue."""
    known = ", ".join(FileProperty)
    if not isinstance(names, Iterable) or isinstance(names, str | bytes | dict):
        raise InvalidValue(f"is a list of any of {known}")
    found = set()
    for name in names:
        if name not in tuple(FileProperty):
            raise InvalidValue(f"{name!r:.100} is not one of {known}")
        found.add(FileProperty(name))
    return frozenset(found)


def stays_on_one_file_system(path: str, choice: object) -> bool:
    """Return True when file systems mounted below the source are excluded: the choice, or by default for ``/`` alone.

    A whole system has /proc, /sys and /dev mounted in it, and as a rule disks of others.
    """
    return choice if isinstance(choice, bool) else posixpath.normpath(path) in ("/", "//")
