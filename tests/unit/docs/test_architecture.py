"""The pages for maintainers name every package, and nothing that is gone."""

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


def test_every_path_of_the_page_for_contributors_is_there() -> None:
    page = (REPOSITORY / "CONTRIBUTING.md").read_text()
    paths = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+(?:\.[a-z]+)?)`", page))
    assert len(paths) > 20
    assert {path for path in paths if not any((root / path).exists() for root in (SOURCE, REPOSITORY))} == set()


def test_docstrings_name_sections_that_the_contract_has() -> None:
    contract = (REPOSITORY / "docs" / "contract.md").read_text()
    named = {
        section
        for root in (SOURCE, REPOSITORY / "tests")
        for file in root.rglob("*.py")
        for section in re.findall(r'\(contract, "([A-Z][^"]+)"', file.read_text())
    }
    assert named
    assert {section for section in named if f"## {section}\n" not in contract} == set()
