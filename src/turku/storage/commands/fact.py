"""A fact about this host, with a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """The verdict on one fact."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Fact:
    """One thing that protects this host, or does not. ``text`` also says what to do about it."""

    subject: str
    verdict: Verdict
    text: str
