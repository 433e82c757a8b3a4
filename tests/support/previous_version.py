"""The previous version of the programs, from the repository's own history, beside the present one.

    previous = previous_version.checked_out(directory)      the test is skipped where there is no history
    hosts = Hosts(directory / "bin", previous)              programs of ours that are all of the previous version
    hosts.upgrade("storage")                                those of that host are of the present one from now on

The libraries are the present ones. Nothing else is shared: each program reads its own tree.
"""

import io
import shutil
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from tests.support.markdown import REPOSITORY

from turku.core import command

COMMIT = "10dad7d69dd37f92a85604ab810fc29dfab99a1a"
"""The last release. Until there is one, the last commit before packages and setup."""
HOSTS = ("api", "storage", "agent")
_TIMEOUT_SECONDS = 120.0
_ARCHIVE_LIMIT_BYTES = 256 * 1024 * 1024


def checked_out(directory: Path) -> Path:
    """Return the ``src`` of the previous version, in the directory."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    found = command.run(
        ["git", "-C", REPOSITORY, "cat-file", "-e", f"{COMMIT}^{{commit}}"],
        timeout_seconds=_TIMEOUT_SECONDS,
        check=False,
    )
    if found.exit_code != 0:
        pytest.skip(f"there is no commit {COMMIT[:12]} here: this is a shallow clone, or no clone at all")
    archive = command.run(
        ["git", "-C", REPOSITORY, "archive", COMMIT, "src"],
        timeout_seconds=_TIMEOUT_SECONDS,
        capture_limit_bytes=_ARCHIVE_LIMIT_BYTES,
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as opened:
        opened.extractall(directory, filter="data")
    return directory / "src"


class Hosts:
    """The programs of three hosts in one directory. The programs of a host are of one version."""

    def __init__(self, directory: Path, previous: Path) -> None:
        self.directory = directory
        self._previous = previous
        scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
        directory.mkdir()
        for name, entry in scripts.items():
            module, function = entry.split(":")
            host = module.split(".")[1]
            if host in HOSTS:
                start = f"import sys; sys.argv[0] = {name!r}; from {module} import {function} as run; run()"
                program = directory / name
                program.write_text(
                    f'#!/bin/sh\nPYTHONPATH="$(cat {directory}/{host}.tree)" exec {sys.executable} -c "{start}" "$@"\n'
                )
                program.chmod(0o755)
        self.downgrade_all()

    def loaded_from(self, host: str) -> Path:
        """Return the tree that the host's programs import."""
        tree = (self.directory / f"{host}.tree").read_text()
        shown = command.run(
            [sys.executable, "-c", "import turku; print(turku.__file__)"],
            timeout_seconds=_TIMEOUT_SECONDS,
            extra_environment={"PYTHONPATH": tree},
        )
        return Path(shown.stdout.decode().strip())

    def downgrade_all(self) -> None:
        """Let all programs be of the previous version."""
        for host in HOSTS:
            (self.directory / f"{host}.tree").write_text(str(self._previous))

    def upgrade(self, host: str) -> None:
        """Let the programs of the host be of the present version."""
        (self.directory / f"{host}.tree").write_text(str(REPOSITORY / "src"))
