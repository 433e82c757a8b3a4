"""The properties of files that a source can leave out of its backups (source option ``not_preserved``).

Content, owner, mode and times are always kept. So are these, unless a source names them.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from turku.errors import InvalidValue


class Property(StrEnum):
    """A property of files beyond content, owner, mode and times."""

    ACLS = "acls"
    """POSIX access control lists, access and default."""
    ATTRIBUTES = "attributes"
    """Extended attributes: ``user.*``, ``trusted.*`` and ``security.*`` (file capabilities, SELinux labels)."""
    HARD_LINKS = "hard_links"
    """Several names of one file."""
    HOLES = "holes"
    """Ranges of zeros that take no space."""


def parse(names: object) -> frozenset[Property]:
    """Return the properties that the option's value names. Raises InvalidValue for any other value."""
    known = ", ".join(Property)
    if not isinstance(names, Iterable) or isinstance(names, str | bytes | dict):
        raise InvalidValue(f"is a list of any of {known}")
    found = set()
    for name in names:
        if name not in tuple(Property):
            raise InvalidValue(f"{name!r:.100} is not one of {known}")
        found.add(Property(name))
    return frozenset(found)
