"""The limit on a transfer's bandwidth (contract, section 2: ``bwlimit``)."""

from __future__ import annotations

import re
from typing import Any

from turku.errors import PolicyError
from turku.policy.characters import shown

LIMIT_KIB_PER_SECOND = 2**31 - 1
"""rsync keeps the figure in an int."""
_NUMBER = re.compile(r"\d{1,12}(\.\d{1,12})?", re.ASCII)
_HINT = "a whole number of KiB/s such as 512; 0 or nothing for no limit"


def kib_per_second(value: Any) -> int | None:
    """KiB per second; None for no limit (nothing, empty text, or 0). Raises PolicyError."""
    number = _number(value)
    if number is None or number == 0:
        return None
    # Neither NaN nor a number outside is inside; one of thousands of digits is not printed.
    if not 0 < number <= LIMIT_KIB_PER_SECOND:
        raise PolicyError(f"a bandwidth limit is from 0 to {LIMIT_KIB_PER_SECOND} KiB/s", hint=_HINT)
    if number != int(number):
        raise PolicyError(f"{number:g} is not a whole number of KiB/s", hint=_HINT)
    return int(number)


def _number(value: Any) -> int | float | None:
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return None
        if not _NUMBER.fullmatch(text):
            raise PolicyError(f"{shown(text)} is no bandwidth limit", hint=_HINT)
        return float(text) if "." in text else int(text)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PolicyError(f"a {type(value).__name__} is no bandwidth limit", hint=_HINT)
    return value
