"""The wheel and the source distribution have what the repository has."""

import re
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from tests.support.markdown import REPOSITORY

from turku.core import command

SOURCES = REPOSITORY / "src"


def files_below(directory: Path, start: Path) -> set[str]:
    return {
        str(file.relative_to(start))
        for file in directory.rglob("*")
        if file.is_file() and not re.search(r"__pycache__|\.egg-info", str(file))
    }


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both, built without network from a copy of what the build reads."""
    directory = tmp_path_factory.mktemp("distributions")
    copy = directory / "copy"
    copy.mkdir()
    tar = ["tar", "--create", "--exclude=__pycache__", "--exclude=*.egg-info", f"--file={directory}/copy.tar"]
    command.run([*tar, f"--directory={REPOSITORY}", *BUILT_FROM], timeout_seconds=60)
    command.run(["tar", "--extract", f"--file={directory}/copy.tar", f"--directory={copy}"], timeout_seconds=60)
    command.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(directory), str(copy)], timeout_seconds=150
    )
    return directory


BUILT_FROM = (
    *("src", "packaging", "docs", "examples", "pyproject.toml", "MANIFEST.in"),
    *("README.md", "LICENSE", "CHANGELOG.md", "constraints.txt", "Makefile"),
)


def test_the_wheel_has_every_file_of_the_programs(distributions: Path) -> None:
    [wheel] = distributions.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == files_below(SOURCES, SOURCES)


def test_the_wheel_starts_every_program(distributions: Path) -> None:
    [wheel] = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        [entry_points] = [name for name in archive.namelist() if name.endswith("/entry_points.txt")]
        declared = dict(re.findall(r"^(\S+) = (\S+)$", archive.read(entry_points).decode(), re.MULTILINE))
    assert declared == tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]


def test_the_source_distribution_builds_the_packages_as_well(distributions: Path) -> None:
    [archive] = distributions.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    wanted = {*BUILT_FROM} - {"src", "packaging", "docs", "examples"}
    for directory in ("src", "packaging", "docs", "examples"):
        wanted |= files_below(REPOSITORY / directory, REPOSITORY)
    assert wanted <= names
