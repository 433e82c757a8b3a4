"""The architecture page names every package and nothing that is gone."""

from __future__ import annotations

import re

from tests.support.markdown import REPOSITORY

SOURCE = REPOSITORY / "src" / "turku"
PAGE = (REPOSITORY / "docs" / "architecture.md").read_text()


def named() -> set[str]:
    return set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:\.py)?)`", PAGE))


def test_every_package_of_a_program_and_of_the_core_is_named() -> None:
    packages = {file.parent.relative_to(SOURCE) for file in SOURCE.glob("*/*/__init__.py")}
    assert {str(package) for package in packages} - named() == set()


def test_every_path_is_there() -> None:
    paths = {name for name in named() if "/" in name}
    assert {name for name in paths if not (SOURCE / name).exists()} == set()
