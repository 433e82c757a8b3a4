"""Names of backup trees that other programs made: rsnapshot's intervals, and dates in names of directories."""

import re
from datetime import UTC, datetime, tzinfo

from turku.policy.timing import local_time

_INTERVAL = re.compile(r"[A-Za-z][A-Za-z0-9_-]*\.\d+")
_DATE = re.compile(
    r"(?<!\d)((?:19|20)\d\d)([-_.]?)(\d\d)\2(\d\d)"
    r"(?:[T_ .@-]{0,2}(\d\d)[:._h-]?(\d\d)(?:[:._m-]?(\d\d))?s?(Z|[+-]\d\d:?\d\d)?)?(?!\d)"
)
_UNIX_SECONDS = re.compile(r"(?<!\d)(1\d{9})(?!\d)")


def is_interval(name: str) -> bool:
    """Return True if rsnapshot gives its directories such names (``daily.0``)."""
    return _INTERVAL.fullmatch(name) is not None


def moment_in(name: str, *, zone: tzinfo) -> datetime | None:
    """Return the moment that the name of a directory contains, in UTC, or None if it contains none.

    It is a date, alone (the beginning of that day) or with a time, in ``zone`` unless it has one, or Unix seconds.
    """
    try:
        if match := _DATE.search(name):
            year, _separator, month, day, hour, minute, second, offset = match.groups()
            text = f"{year}-{month}-{day}T{hour or '00'}:{minute or '00'}:{second or '00'}"
            if offset:
                return datetime.fromisoformat(text + offset).astimezone(UTC)
            return local_time.moment_of(datetime.fromisoformat(text), zone)
        if match := _UNIX_SECONDS.search(name):
            return datetime.fromtimestamp(int(match[1]), UTC)
    except (ValueError, OverflowError):
        pass
    return None
