"""The parts of the Debian packages that need no clean root: launchers, pins, manual pages, completion and scripts."""

import argparse
import os
import re
import shutil
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import describe
import pinned
import pytest
import stage
from tests.support.markdown import REPOSITORY

from turku.agent.cli import PROGRAM as AGENT
from turku.core import command
from turku.core.cli.program import Program
from turku.storage.cli import PROGRAM as STORAGE
from turku.storage.rsync import version

SCRIPTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
DEBIAN = REPOSITORY / "packaging" / "debian"
MAINTAINER_SCRIPTS = sorted(path for path in DEBIAN.iterdir() if path.suffix in (".postinst", ".prerm", ".postrm"))
NAMES = sorted(name for name in SCRIPTS if name != "turku")


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("described")
    command.run([sys.executable, REPOSITORY / "packaging/builder/describe.py", directory], timeout_seconds=120)
    return directory


def file_of(described: Path, program: str, kind: str) -> Path:
    return described / program / describe._PLACES[kind].format(program)


def test_every_program_but_the_demo_is_in_one_package() -> None:
    by_role = [name for role in stage.ROLES for name in stage.programs_of(role)]
    assert sorted(by_role) == NAMES
    assert sorted(program.name for program in describe.PROGRAMS) == NAMES


def commands_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices


@pytest.mark.parametrize("program", NAMES)
def test_every_program_has_a_manual_page_without_warnings(described: Path, program: str) -> None:
    page = file_of(described, program, "man")
    lines = page.read_text().splitlines()
    assert lines[2].replace("\\", "").startswith(f"{program} - ")
    assert {".SH SYNOPSIS", ".SH DESCRIPTION", ".SH EXAMPLES", ".SH EXIT STATUS"} <= set(lines)
    if shutil.which("groff"):
        shown = command.run(["groff", "-man", "-Tutf8", "-ww", page], timeout_seconds=60)
        assert shown.last_lines == ()


@pytest.mark.parametrize(("name", "declared"), [("turku-agent", AGENT), ("turku-storage", STORAGE)])
def test_every_command_is_in_the_manual_page_and_in_each_completion(
    described: Path, name: str, declared: Program
) -> None:
    commands = set(commands_of(declared.parser()))
    assert len(commands) > 10
    for kind in describe._PLACES:
        text = file_of(described, name, kind).read_text().replace("\\-", "-")
        assert {each for each in commands if each not in text} == set(), kind


def test_the_commands_of_django_are_completed(described: Path) -> None:
    text = file_of(described, "turku-api", "bash").read_text()
    assert all(name in text for name in ("auth-create", "migrate", "createsuperuser"))


@pytest.mark.parametrize("program", NAMES)
def test_bash_loads_the_completion(described: Path, program: str) -> None:
    file = file_of(described, program, "bash")
    loaded = command.run(
        ["bash", "--norc", "-c", f'. "$1" && complete -p {program}', "bash", str(file)], timeout_seconds=20
    )
    assert program in loaded.stdout.decode()


def test_a_launcher_imports_nothing_of_the_user(tmp_path: Path) -> None:
    library = tmp_path / "library"
    (library / "turku").mkdir(parents=True)
    (library / "turku/__init__.py").touch()
    (library / "turku/cli.py").write_text("def entry():\n    import argparse\n    print('ours', argparse.__file__)\n")
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("turku.py", "argparse.py", "sitecustomize.py"):
        (mine / name).write_text("raise SystemExit('mine')\n")
    launcher = mine / "turku-example"
    text = stage.launcher("turku.cli:entry").replace(f"/{stage.LIBRARY}", str(library))
    assert text.startswith("#!/usr/bin/python3 -IS\n")
    launcher.write_text(text.replace("/usr/bin/python3", sys.executable, 1))
    launcher.chmod(0o755)
    done = command.run(
        ["env", f"--chdir={mine}", launcher], timeout_seconds=20, extra_environment={"PYTHONPATH": str(mine)}
    )
    assert done.stdout.startswith(b"ours ")


def test_a_wheel_is_unpacked_without_what_only_builds_read(tmp_path: Path) -> None:
    wheel = tmp_path / "example-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("example/a.py", "example/a.pyi", "example/a.mo", "example/a.po", "example-1.data/scripts/x"):
            archive.writestr(name, "")
        archive.writestr("example-1.dist-info/licenses/LICENSE", "")
        archive.writestr("example-1.dist-info/RECORD", "")
    stage.unpack(wheel, tmp_path / "library")
    found = {
        str(path.relative_to(tmp_path / "library")) for path in (tmp_path / "library").rglob("*") if path.is_file()
    }
    assert found == {"example/a.py", "example/a.mo", "example-1.dist-info/licenses/LICENSE"}


@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_everything_that_comes_along_is_pinned_by_hash_and_in_one_package(python: str) -> None:
    common, api = pinned.names_of("common", python), pinned.names_of("api", python)
    assert {"msgspec", "rich", "xxhash", "pyyaml"} <= common
    assert {"django", "gunicorn", "psycopg", "whitenoise", "sqlparse"} <= api
    assert not common & api
    assert not (common | api) & {"pytest", "mypy", "shtab", "psycopg-binary"}
    entries = list(pinned.pins(common | api, (REPOSITORY / "constraints.txt").read_text()))
    assert len(entries) == len(common | api)
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_compiled_part_of_psycopg_is_pinned_with_the_rest_of_it() -> None:
    [version_of_the_rest] = re.findall(r"^psycopg==(\S+)", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    compiled = (REPOSITORY / "packaging/builder/compiled.txt").read_text()
    assert re.findall(r"^psycopg-c==(\S+) \\\n +--hash=sha256:", compiled, re.MULTILINE) == [version_of_the_rest]


@pytest.mark.parametrize("script", MAINTAINER_SCRIPTS, ids=lambda path: path.name)
def test_a_maintainer_script_is_read_by_sh(script: Path) -> None:
    assert "#DEBHELPER#" in script.read_text()
    command.run(["sh", "-n", script], timeout_seconds=20)


def test_packages_need_the_rsync_that_a_storage_accepts() -> None:
    assert f"rsync (>= {version.MINIMUM})" in (DEBIAN / "control").read_text()


def test_scripts_are_executable() -> None:
    for name in ("packages.sh", "host-roots.sh", "debian/rules"):
        assert os.access(REPOSITORY / "packaging" / name, os.X_OK), name
