"""The pinned packages: the demo installs few of them, in the versions that the tests ran with, each with its hashes."""

import re

from tests.support.markdown import REPOSITORY

TOOLS = {"mypy", "ruff", "pytest", "playwright", "hypothesis", "import-linter", "coverage", "requests"}


def pins(name: str) -> dict[str, str]:
    entries = re.findall(r"^[a-z][^\n]*(?:\n +[^\n]*)*", (REPOSITORY / name).read_text(), re.MULTILINE)
    # A package may be for some systems only in one of the two.
    return {entry.partition("==")[0]: re.sub(r" ; [^\\]*", " ", entry) for entry in entries}


def test_the_demo_installs_what_it_needs_in_the_tested_versions() -> None:
    every, demo = pins("constraints.txt"), pins("constraints-demo.txt")
    assert {name: every.get(name) for name in demo} == demo
    assert all("--hash=sha256:" in entry for entry in demo.values())
    assert {"django", "gunicorn", "msgspec", "rich", "setuptools"} <= demo.keys()
    assert not TOOLS & demo.keys()
    assert every.keys() >= TOOLS
