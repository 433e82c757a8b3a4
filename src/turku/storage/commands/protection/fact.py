"""A fact about the protection of this host, with a verdict."""

from enum import Enum
from functools import partial
from typing import NamedTuple


class Verdict(Enum):
    """The verdict on one fact."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Fact(NamedTuple):
    """One thing that protects this host, or does not. ``text`` also says what to do about it."""

    verdict: Verdict
    subject: str
    text: str


ok, warn, fail = (partial(Fact, verdict) for verdict in Verdict)
