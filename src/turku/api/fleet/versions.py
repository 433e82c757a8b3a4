"""Versions that machines and storages report, and their order."""

import re
from collections.abc import Mapping
from typing import Any

from turku.core.log import one_line

NAMES = ("turku", "rsync", "ssh", "os", "python")
LENGTH = 100
_NUMBERS = re.compile(r"(\d{1,4})(?:\.(\d{1,4}))?(?:\.(\d{1,4}))?", re.ASCII)
_STEP = 10_000


def order(text: str) -> int | None:
    """Return a number that sorts like the version that the text begins with, or None if it begins with none."""
    match = _NUMBERS.match(text)
    if match is None:
        return None
    major, minor, patch = (int(digits or 0) for digits in match.groups())
    return (major * _STEP + minor) * _STEP + patch


def columns(reported: Mapping[str, str]) -> dict[str, Any]:
    """Return the columns of a machine or storage that reports these versions."""
    kept = {name: one_line(reported[name])[:LENGTH] for name in NAMES if reported.get(name)}
    return {"versions": kept, "program_order": order(kept.get("turku", ""))}
