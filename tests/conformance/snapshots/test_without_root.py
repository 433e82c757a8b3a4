"""The same suite as a user without privileges: an own volume, ownership kept in extended attributes."""

import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conformance.snapshots.conftest import FILE_SYSTEMS, PLAIN
from tests.support import rsync_programs
from tests.support.loop_volume import handed_down

from turku.core import command

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="runs without root already")

_CHECKOUT = Path(__file__).parents[3]
_NOBODY = 65534
_SELECTED = (
    *("identical", "kind_of_change", "forbids", "only_when_asked", "nothing_hidden", "deeper", "switching"),
    *("changes_a_little", "no_longer_do", "failed_run", "no_rule_keeps", "while_rsync_is_at_work"),
    "named_and_repaired",
)
"""The tests of owners and of leave to read, write and remove. The others take the same steps, as root or not."""


def _as_nobody(interpreter: str, *arguments: str) -> list[str]:
    path = f"{_CHECKOUT / 'src'}:{_CHECKOUT}:{sysconfig.get_path('purelib')}"
    return [
        *("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--inh-caps=-all"),
        *("env", f"PYTHONPATH={path}", "PYTHONDONTWRITEBYTECODE=1", "HOME=/nonexistent"),
        *(interpreter, *arguments),
    ]


def _interpreter() -> str:
    """A Python that the other user can run with our packages: this one, or the system's where ours lies out of reach."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        probe = _as_nobody(candidate, "-c", "import pytest, msgspec, django, turku.storage.backup.run")
        if command.run(probe, timeout_seconds=60, check=False).exit_code == 0:
            return candidate
    pytest.skip("no Python that another user can run with these packages")


@pytest.fixture
def open_tmp_path() -> Iterator[Path]:
    """A directory that others may enter. Pytest's own ones are closed to them each time that any pytest starts."""
    with tempfile.TemporaryDirectory(prefix="turku-") as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


@pytest.mark.timeout(600)
def test_every_mode_passes_without_root(open_tmp_path: Path, loop_volumes: Callable[[str], Path]) -> None:
    inner = open_tmp_path / "inner"
    inner.mkdir()
    shutil.chown(inner, _NOBODY, _NOBODY)
    volumes = {}
    for kind in (PLAIN, *FILE_SYSTEMS.values()):
        loop_volumes(kind).chmod(0o755)
        volumes[kind] = Path(tempfile.mkdtemp(dir=loop_volumes(kind)))
        shutil.chown(volumes[kind], _NOBODY, _NOBODY)
    completed = command.run(
        _as_nobody(
            _interpreter(),
            *("-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", f"--basetemp={inner / 'tmp'}"),
            *rsync_programs.options(),
            *("-k", " or ".join(_SELECTED), str(Path(__file__).parent)),
        ),
        timeout_seconds=580,
        working_directory=_CHECKOUT,
        # The coordinator's settings are read before any conftest, and want a directory that is theirs.
        extra_environment={"TMPDIR": str(inner), "TURKU_STATE_DIR": str(inner / "state"), **handed_down(volumes)},
        check=False,
    )
    report = completed.stdout.decode("utf-8", "replace")
    assert completed.exit_code == 0, report
    assert " passed" in report
